package eventstore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Keyring seals secrets under the master key and derives other keys from it.
// Safe for concurrent use.
type Keyring struct {
	master []byte
	aead   cipher.AEAD
}

// MasterKeySize is the length of a master key in bytes.
const MasterKeySize = 32

// sealPrefix names the form: AES-256-GCM under the master key, unpadded
// base64url of nonce and ciphertext.
const sealPrefix = "v1."

// NewKeyring returns the keyring of a master key of MasterKeySize bytes.
func NewKeyring(master []byte) (*Keyring, error) {
	if len(master) != MasterKeySize {
		return nil, fmt.Errorf("a master key has %d bytes, not %d", MasterKeySize, len(master))
	}
	block, err := aes.NewCipher(master)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Keyring{master, aead}, nil
}

// Derive returns the 32-byte key for a purpose, by HKDF-SHA256 (RFC 5869).
func (k *Keyring) Derive(purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, k.master, nil, "lotline "+purpose, 32)
}

// Seal encrypts plain so that only this keyring opens it, and only at the same
// stream, event type and field.
func (k *Keyring) Seal(stream, eventType, field, plain string) string {
	nonce := make([]byte, k.aead.NonceSize(), k.aead.NonceSize()+len(plain)+k.aead.Overhead())
	rand.Read(nonce)
	sealed := k.aead.Seal(nonce, nonce, []byte(plain), sealPlace(stream, eventType, field))
	return sealPrefix + base64.RawURLEncoding.EncodeToString(sealed)
}

// errSealed says no more than that: which part did not fit is nobody's business.
var errSealed = errors.New("the sealed value does not open with this master key at this place")

// Open undoes Seal.
func (k *Keyring) Open(stream, eventType, field, sealed string) (string, error) {
	encoded, ok := strings.CutPrefix(sealed, sealPrefix)
	if !ok {
		return "", errSealed
	}
	raw, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(raw) < k.aead.NonceSize() {
		return "", errSealed
	}
	nonce, box := raw[:k.aead.NonceSize()], raw[k.aead.NonceSize():]
	plain, err := k.aead.Open(nil, nonce, box, sealPlace(stream, eventType, field))
	if err != nil {
		return "", errSealed
	}
	return string(plain), nil
}

// sealPlace binds a sealed value to its place: each part with its length before
// it, in eight bytes, big-endian.
func sealPlace(parts ...string) []byte {
	var place []byte
	for _, p := range parts {
		place = binary.BigEndian.AppendUint64(place, uint64(len(p)))
		place = append(place, p...)
	}
	return place
}
