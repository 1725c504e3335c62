package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asLotline makes the test binary behave as the program, so that tests of
// processes run with whatever the tests were built with, the race detector too.
const asLotline = "LOTLINE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if tool, ok := map[string]func([]string) error{asCurl: curlMain, asJq: jqMain}[filepath.Base(os.Args[0])]; ok {
		if err := tool(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if at := os.Getenv(asBroker); at != "" {
		beBroker(at, os.Getenv(brokerDir))
	}
	if os.Getenv(asLotline) != "" {
		installFaults()
		main()
	}
	goleak.VerifyTestMain(m)
}

// program is where a test gets the program from.
type program struct {
	path string
	env  []string
}

func testBinary(t testing.TB) program {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program{path, []string{asLotline + "=1"}}
}

// builtBinary is the program as a user builds it.
func builtBinary(t testing.TB) program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lotline")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program{path, nil}
}

func (p program) command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, p.path, args...)
	// Nothing of the tester's own configuration gets in.
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LOTLINE_") && !strings.HasPrefix(v, "OTEL_") {
			c.Env = append(c.Env, v)
		}
	}
	c.Env = append(append(c.Env, p.env...), env...)
	return c
}

// run runs a command to its end.
func (p program) run(t testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	c := p.command(ctx, env, args...)
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Run documents this type
		return out.String(), errs.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), 0
}

// engine is a running `lotline serve`.
type engine struct {
	t      testing.TB
	cmd    *exec.Cmd
	url    string
	stdout *lockedBuffer
	stderr *lockedBuffer
	// foreign says that what answers is not the API.
	foreign bool
	printed sync.WaitGroup
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// dataDirectory is a short path, as a Unix socket's has to be.
func dataDirectory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lotline-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "data")
}

// serve starts an engine on a port of its own and waits until it says where it
// listens. It is killed at the end of the test if it still runs.
func (p program) serve(t testing.TB, dir string, env ...string) *engine {
	t.Helper()
	return p.serveWith(t, dir, nil, env...)
}

func (p program) serveWith(t testing.TB, dir string, flags []string, env ...string) *engine {
	t.Helper()
	env = append([]string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_LISTEN=127.0.0.1:0"}, env...)
	e := &engine{t: t, cmd: p.command(context.Background(), env, append([]string{"serve"}, flags...)...), stdout: &lockedBuffer{}, stderr: &lockedBuffer{}}
	e.cmd.Stderr = e.stderr
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.kill)
	ready := make(chan string, 1)
	e.printed.Go(func() {
		lines := bufio.NewScanner(io.TeeReader(out, e.stdout))
		for lines.Scan() {
			if url, ok := strings.CutPrefix(lines.Text(), "Lotline is listening on "); ok {
				ready <- url
			}
		}
		close(ready)
	})
	url, ok := <-ready
	if !ok {
		t.Fatalf("it did not start: %s", e.stderr)
	}
	e.url = url
	return e
}

var shownKey = regexp.MustCompile(`secret key +(sk_live_[A-Z0-9]+)`)

// secretKey is the key that the engine shows at its first start.
func (e *engine) secretKey() string {
	e.t.Helper()
	var key string
	eventually(e.t, "a key is shown", func() bool {
		m := shownKey.FindStringSubmatch(e.stdout.String())
		if m != nil {
			key = m[1]
		}
		return m != nil
	})
	return key
}

// kill is kill -9.
func (e *engine) kill() {
	if e.cmd.ProcessState != nil {
		return
	}
	if err := e.cmd.Process.Kill(); err != nil {
		e.t.Error(err)
	}
	e.printed.Wait()
	if err := e.cmd.Wait(); err == nil {
		e.t.Error("a killed process ended well")
	}
}

// terminate is SIGTERM; it returns the exit code.
func (e *engine) terminate() int {
	e.t.Helper()
	return e.end(syscall.SIGTERM)
}

// end sends a signal on which the program ends, and returns the exit code.
func (e *engine) end(signal syscall.Signal) int {
	e.t.Helper()
	if err := e.cmd.Process.Signal(signal); err != nil {
		e.t.Error(err)
	}
	e.printed.Wait()
	if err := e.cmd.Wait(); err != nil {
		e.t.Logf("%v: %s", err, e.stderr)
	}
	return e.cmd.ProcessState.ExitCode()
}

// answer is what came back from a call.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return m
}

func (e *engine) call(method, path, key, body string, header ...string) answer {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, e.url+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: http.DefaultTransport}
	if !e.foreign {
		client.Transport = &held{t: e.t, RoundTripper: client.Transport, oneIn: 1}
	}
	resp, err := client.Do(req)
	if err != nil {
		e.t.Fatalf("%v\n%s", err, e.stderr)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, got}
}

// must is a call that has to give a status.
func (e *engine) must(status int, method, path, key, body string, header ...string) answer {
	e.t.Helper()
	a := e.call(method, path, key, body, header...)
	if a.status != status {
		e.t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	return a
}

// patience is for what takes no time on a machine that is not busy.
const patience = 30 * time.Second

// eventually waits for what the clock or another process is about to bring.
func eventually(t testing.TB, what string, reached func() bool) {
	t.Helper()
	within(t, patience, what, reached)
}

func within(t testing.TB, patience time.Duration, what string, reached func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !reached() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// in is a time some milliseconds from now, as the API writes it.
func in(ms int) string {
	return time.Now().Add(time.Duration(ms) * time.Millisecond).UTC().Format("2006-01-02T15:04:05.000Z")
}

func body(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// startStore starts a `lotline store` that listens on an address, and waits until
// it says so.
func startStore(t testing.TB, p program, dir, at string, env ...string) *engine {
	t.Helper()
	env = append([]string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_EMBEDDED_LISTEN=" + at}, env...)
	e := &engine{t: t, cmd: p.command(context.Background(), env, "store"), stdout: &lockedBuffer{}, stderr: &lockedBuffer{}}
	e.cmd.Stdout, e.cmd.Stderr = e.stdout, e.stderr
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.kill)
	eventually(t, "the store listens", func() bool { return strings.Contains(e.stdout.String(), "esdb://") })
	return e
}
