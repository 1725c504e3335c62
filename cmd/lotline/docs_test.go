package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// files returns the text of every file of the repository that has this ending, by path.
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

// A promise in the documentation names its test. The test has to exist.
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

// Links to pages, folders and headings lead to something that exists.
func TestDocs_linkOnlyToWhatExists(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	pages := files(t, ".md")
	for path, text := range pages {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := path
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(path), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
			if m[2] != "" && !slices.Contains(anchors(pages[to]), m[2]) {
				t.Errorf("%s links to %s, which has no heading #%s", path, to, m[2])
			}
		}
	}
}

// anchors returns the names by which links reach the headings of a page.
func anchors(page string) []string {
	var all []string
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// The page for operators names every variable that the help names.
func TestDocs_nameEveryVariable(t *testing.T) {
	t.Parallel()
	page := operationsPage(t)
	help, _, _ := testBinary(t).run(t, nil, "serve", "--help")
	variables := regexp.MustCompile(`LOTLINE_[A-Z_]+`).FindAllString(help, -1)
	if len(variables) == 0 {
		t.Error("the help names no variable")
	}
	for _, v := range variables {
		if !strings.Contains(page, "`"+v+"`") {
			t.Errorf("docs/operations.md does not name %s", v)
		}
	}
}
