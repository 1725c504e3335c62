// Command zones writes a time-zone database to a zip archive. It takes the zones from a
// folder with the layout of /usr/share/zoneinfo, and adds a file +VERSION with the name
// of the edition. The same files always give the same archive.
package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: zones FOLDER ARCHIVE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "zones:", err)
		os.Exit(1)
	}
}

func run(folder, archive string) error {
	source, err := os.ReadFile(filepath.Join(folder, "tzdata.zi"))
	if err != nil {
		return err
	}
	line, _, _ := strings.Cut(string(source), "\n")
	edition, ok := strings.CutPrefix(line, "# version ")
	if !ok {
		return fmt.Errorf("tzdata.zi begins with %q and names no edition", line)
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	w.RegisterCompressor(zip.Deflate, func(to io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(to, flate.BestCompression)
	})
	add := func(name string, data []byte) error {
		// The header has no modification time, so that only the files decide the bytes.
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		if err == nil {
			_, err = f.Write(data)
		}
		return err
	}
	if err := add("+VERSION", []byte(edition+"\n")); err != nil {
		return err
	}
	// WalkDir visits the files in the order of their names.
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		switch name = filepath.ToSlash(name); name {
		case "posix", "right":
			return fs.SkipDir
		case "localtime", "posixrules", "Factory":
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path) // ReadFile follows symbolic links
		if err != nil || !bytes.HasPrefix(data, []byte("TZif")) {
			return err
		}
		return add(name, data)
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(archive, out.Bytes(), 0o644) //nolint:gosec // a source file
}
