package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// files returns the repository's files whose names have an ending, by path.
func files(t *testing.T, ending string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ending) {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[path] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The documents name only tests that exist: the tests prove what the documents promise.
func TestDocs_nameOnlyTestsThatExist(t *testing.T) {
	t.Parallel()
	var tests strings.Builder
	for _, text := range files(t, "_test.go") {
		tests.WriteString(text)
	}
	named := regexp.MustCompile("`(Test[A-Za-z_0-9]+)(…?)`")
	found := 0
	for path, text := range files(t, ".md") {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			found++
			name := "func " + m[1]
			if m[2] == "" {
				name += "("
			}
			if !strings.Contains(tests.String(), name) {
				t.Errorf("%s names %s, which does not exist", path, m[1])
			}
		}
	}
	if found == 0 {
		t.Error("no page names a test")
	}
}

// Links between pages and to folders lead to something that exists.
func TestDocs_linkOnlyToWhatExists(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for path, text := range files(t, ".md") {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
}

// The documents name every environment variable.
func TestDocs_nameEveryVariable(t *testing.T) {
	t.Parallel()
	readme := files(t, "README.md")[filepath.Join(root, "README.md")]
	help, _, _ := testBinary(t).run(t, nil, "serve", "--help")
	for _, v := range regexp.MustCompile(`LOTLINE_[A-Z_]+`).FindAllString(help, -1) {
		if !strings.Contains(readme, "`"+v+"`") {
			t.Errorf("the README does not name %s", v)
		}
	}
}
