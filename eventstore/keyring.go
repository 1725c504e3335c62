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

// Keyring seals secrets with the master key and derives other keys from it. It is safe
// for concurrent use.
type Keyring struct {
	master []byte
	aead   cipher.AEAD
}

// MasterKeySize is the length of a master key in bytes.
const MasterKeySize = 32

// sealPrefix marks the format of a sealed value: AES-256-GCM with the master key, then
// nonce and ciphertext in unpadded base64url.
const sealPrefix = "v1."

// NewKeyring returns the keyring of a master key, which must have MasterKeySize bytes.
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

// Seal encrypts plain. Only a keyring with the same master key opens the result, and only
// for the same stream, event type and field.
func (k *Keyring) Seal(stream, eventType, field, plain string) string {
	nonce := make([]byte, k.aead.NonceSize(), k.aead.NonceSize()+len(plain)+k.aead.Overhead())
	rand.Read(nonce)
	sealed := k.aead.Seal(nonce, nonce, []byte(plain), sealPlace(stream, eventType, field))
	return sealPrefix + base64.RawURLEncoding.EncodeToString(sealed)
}

// errSealed does not say which part did not match: that would help an attacker.
var errSealed = errors.New("the sealed value does not open with this master key at this place")

// Open decrypts a value that Seal returned for the same stream, event type and field.
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

// sealPlace returns the additional data that binds a sealed value to its stream, event
// type and field. It writes the length of each part, as eight bytes in big-endian order,
// and then the part itself.
func sealPlace(parts ...string) []byte {
	var place []byte
	for _, p := range parts {
		place = binary.BigEndian.AppendUint64(place, uint64(len(p)))
		place = append(place, p...)
	}
	return place
}
