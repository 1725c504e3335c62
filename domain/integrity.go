package domain

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"
)

// HashParts is the SHA-256 of the parts. Each part is preceded by its length, an
// eight-byte big-endian number, so that different lists of parts never give the same
// bytes.
func HashParts(parts ...[]byte) [32]byte {
	h := sha256.New()
	var length [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(p)))
		h.Write(length[:])
		h.Write(p)
	}
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

// EventHash links an event to the one before it. It covers the event's id, type,
// stream and revision, the stored bytes of its data, its metadata without the
// hash itself, and prev, the hash of the event before ("" for the first). The
// result is unpadded base64url.
func EventHash(id [16]byte, eventType, stream string, revision Revision, data, metadata []byte, prev string) string {
	sum := HashParts(
		id[:], []byte(eventType), []byte(stream), strconv.AppendInt(nil, int64(revision), 10),
		data, metadata, []byte(prev),
	)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// The hash is the last member of the stored metadata. So the metadata that it covers
// are the stored bytes before it, and a closing brace.
const (
	hashMember = `,"hash":"`
	hashEnd    = `"}`
	hashLength = 43 // 32 bytes in unpadded base64
)

// WithHash adds hash to metadata, a JSON object that is not empty.
func WithHash(metadata []byte, hash string) []byte {
	out := make([]byte, 0, len(metadata)+len(hashMember)+len(hash)+1)
	out = append(out, metadata[:len(metadata)-1]...)
	out = append(out, hashMember...)
	out = append(out, hash...)
	return append(out, hashEnd...)
}

// SplitHash undoes WithHash. It reports false for metadata that WithHash did not
// make.
func SplitHash(stored []byte) (metadata []byte, hash string, ok bool) {
	at := len(stored) - len(hashMember) - hashLength - len(hashEnd)
	if at < 2 || !bytes.HasPrefix(stored[at:], []byte(hashMember)) || !bytes.HasSuffix(stored, []byte(hashEnd)) {
		return nil, "", false
	}
	metadata = append(append(make([]byte, 0, at+1), stored[:at]...), '}')
	return metadata, string(stored[at+len(hashMember) : len(stored)-len(hashEnd)]), true
}
