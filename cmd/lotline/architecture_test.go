package main

import (
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var updateMap = flag.Bool("update-architecture", false, "write the map of the packages into docs/architecture.md")

const ourModule = "github.com/lotline/lotline/"

// mappedPackage is a package of this module, with its purpose and its imports from this
// module.
type mappedPackage struct {
	purpose string
	imports []string
}

// TestArchitecture_theMapOfThePackagesIsWhatTheImportsSay compares the table in
// docs/architecture.md with the code. Its purposes are the first sentences of the
// package comments.
func TestArchitecture_theMapOfThePackagesIsWhatTheImportsSay(t *testing.T) {
	t.Parallel()
	page := filepath.Join(root, "docs", "architecture.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	// A comment within the table would end it.
	const begin, end = "<!-- packages -->\n| package | what it is for | imports of ours |\n|---|---|---|\n", "<!-- /packages -->"
	before, rest, ok := strings.Cut(string(text), begin)
	written, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no map of the packages", page)
	}
	packages := mapPackages(t)
	if len(packages) < 10 {
		t.Fatalf("found %d packages only", len(packages))
	}
	var want strings.Builder
	for _, path := range slices.Sorted(maps.Keys(packages)) {
		p := packages[path]
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", path, p.purpose, strings.Join(p.imports, ", "))
	}
	if want.String() == written {
		return
	}
	if *updateMap {
		if err := os.WriteFile(page, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the map is not what the code says; go test ./cmd/lotline -run Architecture -update-architecture writes it:\n%s", want.String())
}

// TestArchitecture_theFloorsAreWhatTheImportsSay compares the arrows of the diagram in
// docs/architecture.md with the code.
func TestArchitecture_theFloorsAreWhatTheImportsSay(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	var drawn []string
	for _, arrow := range regexp.MustCompile(`(?m)^ +(\w+ --> \w+)$`).FindAllStringSubmatch(string(text), -1) {
		drawn = append(drawn, arrow[1])
	}
	var imported []string
	for path, p := range mapPackages(t) {
		floor, _, _ := strings.Cut(path, "/")
		for _, i := range p.imports {
			if below, _, _ := strings.Cut(i, "/"); floor != "cmd" && below != floor {
				imported = append(imported, floor+" --> "+below)
			}
		}
	}
	slices.Sort(drawn)
	slices.Sort(imported)
	if imported = slices.Compact(imported); !slices.Equal(drawn, imported) || len(drawn) == 0 {
		t.Errorf("drawn are %q, imported %q", drawn, imported)
	}
}

// mapPackages returns the packages of the module, without their tests.
func mapPackages(t *testing.T) map[string]mappedPackage {
	t.Helper()
	all := map[string]mappedPackage{}
	for path := range files(t, ".go") {
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.ToSlash(dir)
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(dir, "tools") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		p := all[dir]
		if parsed.Doc != nil {
			p.purpose = firstSentence(parsed.Doc.Text())
		}
		for _, i := range parsed.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if ours, ok := strings.CutPrefix(imported, ourModule); ok {
				p.imports = append(p.imports, ours)
			}
		}
		slices.Sort(p.imports)
		p.imports = slices.Compact(p.imports)
		all[dir] = p
	}
	return all
}

// firstSentence returns the first sentence of a package comment, without the package's name
// at its beginning.
func firstSentence(comment string) string {
	comment = strings.Join(strings.Fields(comment), " ")
	sentence, _, _ := strings.Cut(comment, ". ")
	sentence = strings.TrimSuffix(sentence, ".")
	words := strings.SplitN(sentence, " ", 3)
	return words[2]
}

// The packages that serve every kind of distribution use only domain.Participation for what
// a consumer has in a distribution. So a new kind needs only files of its own and its lines
// in httpapi/kinds.go.
func TestArchitecture_onlyFilesAboutQueuesNameThem(t *testing.T) {
	t.Parallel()
	looked := 0
	for path, text := range files(t, ".go") {
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		floor, _, _ := strings.Cut(filepath.ToSlash(dir), "/")
		name := filepath.Base(path)
		about := strings.HasPrefix(name, "queue") || name == "kinds.go" || strings.HasSuffix(name, "_test.go")
		if about || !slices.Contains([]string{"commands", "projections", "httpapi"}, floor) || strings.HasSuffix(dir, "test") {
			continue
		}
		looked++
		for i, line := range strings.Split(text, "\n") {
			if strings.Contains(strings.ToLower(line), "queue") {
				t.Errorf("%s:%d names queues: %s", path, i+1, strings.TrimSpace(line))
			}
		}
	}
	if looked < 30 {
		t.Errorf("looked at %d files only", looked)
	}
}
