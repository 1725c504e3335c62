package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A node that does not have the log's master key does not make a new one.
func TestMasterKey_isOneForAllNodesOfAStore(t *testing.T) {
	t.Parallel()
	lotline, dir, at := testBinary(t), dataDirectory(t), freePort(t)
	store := startStore(t, lotline, dir, at)
	env := []string{"LOTLINE_EVENTSTORE=esdb://" + at + "?tls=false", "LOTLINE_LISTEN=127.0.0.1:0"}
	first, second := dataDirectory(t), dataDirectory(t)
	if code := lotline.serve(t, first, env...).terminate(); code != 0 {
		t.Errorf("the first engine on a new log: exit %d", code)
	}
	_, stderr, code := lotline.run(t, append(env, "LOTLINE_DATA_DIR="+second), "serve")
	if code != exitConfig || !strings.Contains(stderr, "LOTLINE_MASTER_KEY") {
		t.Errorf("an engine without the key: exit %d, %s", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(second, masterKeyFile)); err == nil {
		t.Error("it left a key of its own behind")
	}
	if code := store.terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, store.stderr)
	}
	// A directory in which only a store ran counts as new.
	fresh := dataDirectory(t)
	startStore(t, lotline, fresh, freePort(t)).terminate()
	e := lotline.serve(t, fresh)
	e.must(200, "GET", "/api/v1/queues", e.secretKey(), "")
}

func TestMasterKey_isReadInHexAndBothBase64s(t *testing.T) {
	t.Parallel()
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(0xf8 + i%8)
	}
	for _, text := range []string{
		"f8f9fafbfcfdfefff8f9fafbfcfdfefff8f9fafbfcfdfefff8f9fafbfcfdfeff",
		"+Pn6+/z9/v/4+fr7/P3+//j5+vv8/f7/+Pn6+/z9/v8=",
		"+Pn6+/z9/v/4+fr7/P3+//j5+vv8/f7/+Pn6+/z9/v8",
		"-Pn6-_z9_v_4-fr7_P3-__j5-vv8_f7_-Pn6-_z9_v8",
		" -Pn6-_z9_v_4-fr7_P3-__j5-vv8_f7_-Pn6-_z9_v8\n",
	} {
		got, ok := decodeMasterKey(text)
		if !ok || string(got) != string(key) {
			t.Errorf("%q was read as %x", text, got)
		}
	}
	for _, text := range []string{"", "f8f9", "not a key at all, but as long as one!!!!!!", strings.Repeat("0", 63)} {
		if got, ok := decodeMasterKey(text); ok {
			t.Errorf("%q was read as %x", text, got)
		}
	}
}

// A crash may have left a file at the path of a new master key. Saving the key replaces
// that file and does not write into it.
func TestMasterKey_savingItDoesNotWriteToAFileInItsPlace(t *testing.T) {
	t.Parallel()
	path := dataDirectory(t)
	dir, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	target := filepath.Join(t.TempDir(), "target")
	writeFile(t, target, []byte("what is there"))
	if err := os.Symlink(target, dir.file(masterKeyFile+".new")); err != nil {
		t.Fatal(err)
	}
	if err := saveMasterKey(dir, make([]byte, 32)); err != nil {
		t.Error(err)
	}
	if content := readFile(t, target); string(content) != "what is there" {
		t.Errorf("the link was followed: %q", content)
	}
	if info, err := os.Lstat(dir.file(masterKeyFile)); err != nil || info.Mode() != 0o600 {
		t.Errorf("the key is %v, %v", info, err)
	}
}
