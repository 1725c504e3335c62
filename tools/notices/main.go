// Command notices prints the licenses and notices of every module whose code is in
// the lotline binary, and of Go itself. Its argument is the module's directory.
//
// It takes the files from the directories of the packages that are linked and from
// those above them, up to the root of each module. A module without any such file is
// an error.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// notice matches the names of license and notice files. Every copy of the code must include
// these files.
var notice = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

func main() {
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

// linked is a package in the binary, as go list shows it.
type linked struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Version, Dir string
		Main               bool
	}
}

func run(root string, out io.Writer) error {
	packages, err := linkedPackages(root)
	if err != nil {
		return err
	}
	files := map[string][]string{} // the paths for each module, by its name and version
	for _, p := range packages {
		if p.Standard || p.Module == nil || p.Module.Main {
			continue
		}
		name := p.Module.Path + " " + p.Module.Version
		for dir := p.Dir; ; dir = filepath.Dir(dir) {
			found, err := notices(dir)
			if err != nil {
				return err
			}
			files[name] = append(files[name], found...)
			if dir == p.Module.Dir {
				break
			}
		}
	}
	goroot, err := command(root, "env", "GOROOT")
	if err != nil {
		return err
	}
	files["Go, its standard library"] = []string{filepath.Join(strings.TrimSpace(string(goroot)), "LICENSE")}
	fmt.Fprint(out, "The lotline binary holds code of these modules. Their licenses and notices follow.\n")
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		paths := slices.Compact(slices.Sorted(slices.Values(files[name])))
		if len(paths) == 0 {
			return fmt.Errorf("%s has no license file", name)
		}
		fmt.Fprintf(out, "\n%s\n%s\n", strings.Repeat("=", 80), name)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "\n%s\n", bytes.TrimSpace(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))))
		}
	}
	return nil
}

// linkedPackages returns the packages in the binary for Linux. The binaries for other
// systems contain further modules, but under the same licenses.
func linkedPackages(root string) ([]linked, error) {
	text, err := command(root, "list", "-deps", "-json=Dir,Standard,Module", "./cmd/lotline")
	if err != nil {
		return nil, err
	}
	var all []linked
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var p linked
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
}

// notices returns the license and notice files in a directory.
func notices(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if e.Type()&fs.ModeType == 0 && notice.MatchString(e.Name()) && !strings.HasSuffix(e.Name(), ".go") {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found, nil
}

func command(root string, args ...string) ([]byte, error) {
	c := exec.Command("go", args...)
	c.Dir, c.Stderr = root, os.Stderr
	c.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	return c.Output()
}
