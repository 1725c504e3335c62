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

// blocks returns the fenced blocks of a page in their order.
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

// matches reports whether got matches a text of a page, in which … matches any text.
func matches(t *testing.T, says, got string) bool {
	t.Helper()
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(says)), "…", "(?s:.*?)")
	return regexp.MustCompile("^" + pattern + "$").MatchString(strings.TrimSpace(got))
}

// paste runs the shell blocks of a page one after another in one shell, in an empty
// directory, and compares what each prints with the text block that follows it. It
// uses the program under test, and a port that the system chose.
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
	// An engine that the page leaves running is stopped at the end.
	script.WriteString("trap 'kill $! 2> /dev/null || :; wait' EXIT\n")
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
	// The shell and the processes that it starts are one group, so that all of them can
	// be killed.
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
		_ = end() // fails when no process is left
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

// asCurl is the name under which the test binary acts as curl, with the options that
// the pages use. So the tests need no curl.
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

// The README's run is a section of its own: the commands before it start an engine in
// the foreground.
func TestReadme_itsRunWorks(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(page), "\n## One run\n")
	run, _, ends := strings.Cut(rest, "\n## ")
	if !begins || !ends {
		t.Fatal("the README has no section One run")
	}
	paste(t, run)
}

// The README is read in one go.
func TestReadme_isShort(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	const most = 900
	if n := len(strings.Fields(string(page))); n > most {
		t.Errorf("the README has %d words, more than %d", n, most)
	}
}

// The test of a page fails if the output of a command differs from the page.
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
