package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// block is a fenced block of a page.
type block struct{ language, text string }

func blocks(page string) []block {
	var all []block
	inside := false
	for line := range strings.Lines(page) {
		language, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && !inside:
			inside, all = true, append(all, block{language: language})
		case fence:
			inside = false
		case inside:
			all[len(all)-1].text += line
		}
	}
	return all
}

// matches reports whether a text is what a page says. A … in the page stands for any text.
func matches(t *testing.T, says, got string) bool {
	t.Helper()
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(says)), "…", "(?s:.*?)")
	return regexp.MustCompile("^" + pattern + "$").MatchString(strings.TrimSpace(got))
}

// paste runs the command blocks of a page one after another in one shell, in a copy of
// the files that they need. It compares each block's output with the block after it. It
// replaces the program by the one under test, and the port by a free one.
func paste(t *testing.T, page string) {
	t.Helper()
	dir := filepath.Dir(dataDirectory(t))
	program := testBinary(t)
	for _, name := range []string{"lotline", asCurl, asJq} {
		if err := os.Symlink(program.path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	at := freePort(t)
	const mark = "--- end of block ---"
	var script strings.Builder
	var expected []string
	all := blocks(page)
	for i, b := range all {
		if b.language != "sh" {
			continue
		}
		for line := range strings.Lines(b.text) {
			if !strings.HasPrefix(line, "go build ") {
				script.WriteString(line)
			}
		}
		script.WriteString("echo '" + mark + "'\n")
		says := ""
		if i+1 < len(all) && all[i+1].language == "text" {
			says = all[i+1].text
		}
		expected = append(expected, says)
	}
	if len(expected) == 0 {
		t.Fatal("the page has no commands")
	}
	commands := strings.ReplaceAll(script.String(), "localhost:8080", at)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// The shell and its children are one process group, which is ended at the end.
	shell := exec.CommandContext(ctx, "sh", "-euc", commands)
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end := func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	shell.Cancel = end
	shell.Dir = dir
	shell.WaitDelay = time.Second
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LOTLINE_") && !strings.HasPrefix(v, "PATH=") {
			shell.Env = append(shell.Env, v)
		}
	}
	shell.Env = append(append(shell.Env, program.env...), "LOTLINE_LISTEN="+at, "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	var errs bytes.Buffer
	shell.Stderr = &errs
	out, err := shell.Output()
	if err != nil {
		t.Errorf("%v\n%s\n%s", err, out, &errs)
		_ = end() // children that still run; there may be none
	}
	printed := strings.Split(strings.ReplaceAll(string(out), at, "localhost:8080"), mark+"\n")
	if len(printed) != len(expected)+1 {
		t.Fatalf("%d of %d blocks came to their end:\n%s", len(printed)-1, len(expected), out)
	}
	for i, says := range expected {
		if !matches(t, says, printed[i]) {
			t.Errorf("the page says\n%s\nit prints\n%s", says, printed[i])
		}
	}
}

// asCurl is the name under which the test binary runs as a small curl. It can do what the
// page uses, so that the test does not need curl.
const asCurl = "curl"

func curlMain(arguments []string) error {
	method, data, header, url, withHead := "", "", http.Header{}, "", false
	for i := 0; i < len(arguments); i++ {
		option := arguments[i]
		switch option {
		case "-s":
			continue
		case "-i":
			withHead = true
			continue
		case "-X", "-H", "-d":
			i++
		default:
			url = option
			continue
		}
		switch value := arguments[i]; option {
		case "-X":
			method = value
		case "-d":
			data = value
		case "-H":
			name, text, _ := strings.Cut(value, ": ")
			header.Set(name, text)
		}
	}
	if method == "" && data != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(data))
	if err != nil {
		return err
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if withHead {
		fmt.Fprintf(os.Stdout, "%s %s\n", resp.Proto, resp.Status)
		for name := range resp.Header {
			fmt.Fprintf(os.Stdout, "%s: %s\n", name, resp.Header.Get(name))
		}
	}
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

func TestQuickstart_itsCommandsWork(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "docs", "quickstart.md"))
	if err != nil {
		t.Fatal(err)
	}
	paste(t, string(page))
}

// The test of the page finds planted mistakes in it.
func TestQuickstart_aPageThatIsWrongIsFound(t *testing.T) {
	t.Parallel()
	page := "```sh\necho a; echo b\n```\n\n```text\na\n…\n```\n\n```sh\nx=1\n```\n"
	if got := blocks(page); !slices.Equal(got, []block{{"sh", "echo a; echo b\n"}, {"text", "a\n…\n"}, {"sh", "x=1\n"}}) {
		t.Errorf("%q", got)
	}
	for got, want := range map[string]bool{"a\nb\n": true, "a\nb\nc\n": true, "a\n": false, "b\na\nb\n": false, "": false} {
		if matches(t, "a\n…b…\n", got) != want {
			t.Errorf("%q: %t", got, !want)
		}
	}
}
