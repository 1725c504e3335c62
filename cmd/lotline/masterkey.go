package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/lotline/lotline/eventstore"
)

// masterKey decodes the configured master key. It returns nil if none is configured.
func (s *settings) masterKey() ([]byte, error) {
	if s.MasterKey == "" {
		return nil, nil
	}
	key, ok := decodeMasterKey(s.MasterKey)
	if !ok {
		return nil, badConfig("LOTLINE_MASTER_KEY must be %d bytes in hex or base64", eventstore.MasterKeySize)
	}
	return key, nil
}

func decodeMasterKey(text string) ([]byte, bool) {
	text = strings.TrimSpace(text)
	if key, err := hex.DecodeString(text); err == nil && len(key) == eventstore.MasterKeySize {
		return key, true
	}
	// The key may be in either alphabet of base64, with or without padding.
	text = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
	key, err := base64.RawURLEncoding.DecodeString(text)
	return key, err == nil && len(key) == eventstore.MasterKeySize
}

// masterKey returns the configured master key or, without one, the key in the
// directory. If there is neither it makes a key, reports made, and leaves it to the
// caller to save the key.
func masterKey(s *settings, dir *dataDir) (key []byte, made bool, err error) {
	if key, err := s.masterKey(); key != nil || err != nil {
		return key, false, err
	}
	name := dir.file(masterKeyFile)
	raw, err := readPrivate(name)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, eventstore.MasterKeySize)
		rand.Read(key)
		return key, true, nil
	}
	if err != nil {
		return nil, false, badConfig("master key: %w", err)
	}
	key, ok := decodeMasterKey(string(raw))
	if !ok {
		return nil, false, badConfig("%s does not hold a master key", name)
	}
	return key, false, nil
}

// saveMasterKey writes a new master key atomically: after a crash the file is either
// complete or missing. When it returns, the file is on disk.
func saveMasterKey(dir *dataDir, key []byte) error {
	name := dir.file(masterKeyFile)
	// An earlier start that crashed may have left this file.
	if err := os.Remove(name + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return badConfig("master key: %w", err)
	}
	// O_EXCL: never write to an existing file, nor through a symbolic link.
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return badConfig("master key: %w", err)
	}
	_, err = fmt.Fprintln(f, base64.StdEncoding.EncodeToString(key))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return badConfig("master key: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return badConfig("master key: %w", err)
	}
	folder, err := os.Open(dir.path)
	if err != nil {
		return badConfig("master key: %w", err)
	}
	return errors.Join(folder.Sync(), folder.Close())
}
