package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// When its terminal hangs up, the program ends as after SIGTERM.
func TestSignals_aHangUpEndsInOrder(t *testing.T) {
	t.Parallel()
	t.Run("serve", func(t *testing.T) {
		t.Parallel()
		dir := dataDirectory(t)
		e := testBinary(t).serve(t, dir, "LOTLINE_LOG_FORMAT=json")
		path := e.must(http.StatusCreated, "POST", "/api/v1/queues", e.secretKey(), `{"sequenceId":"s"}`).header.Get("Location")
		if code := e.end(syscall.SIGHUP); code != 0 {
			t.Errorf("exit %d: %s", code, e.stderr)
		}
		for _, said := range []string{`"message":"stopping"`, `"message":"stopped"`} {
			if !strings.Contains(e.stderr.String(), said) {
				t.Errorf("%s is not in %s", said, e.stderr)
			}
		}
		again := testBinary(t).serve(t, dir)
		again.must(http.StatusOK, "GET", path, e.secretKey(), "")
	})
	t.Run("store", func(t *testing.T) {
		t.Parallel()
		e := startStore(t, testBinary(t), dataDirectory(t), "127.0.0.1:0")
		if code := e.end(syscall.SIGHUP); code != 0 {
			t.Errorf("exit %d: %s", code, e.stderr)
		}
	})
	t.Run("bench", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Dir(dataDirectory(t))
		c := testBinary(t).command(t.Context(), nil, "bench", "--json", "--scenario=enter", "--duration=10m", "--connections=4", "--dir="+dir)
		var stdout bytes.Buffer
		stderr := &lockedBuffer{}
		c.Stdout, c.Stderr = &stdout, stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it measures", func() bool { return strings.Contains(stderr.String(), "round 1") })
		if err := c.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
		if !benchReportOf(t, stdout.String()).Interrupted {
			t.Errorf("%s", stdout.String())
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%v, %v", left, err)
		}
	})
}

// A program that nohup started outlives its terminal.
func TestSignals_nohupIsRespected(t *testing.T) {
	t.Parallel()
	p := testBinary(t)
	e := &engine{t: t, stdout: &lockedBuffer{}, stderr: &lockedBuffer{}}
	env := []string{"LOTLINE_DATA_DIR=" + dataDirectory(t), "LOTLINE_LISTEN=127.0.0.1:0", "LOTLINE_LOG_FORMAT=json"}
	e.cmd = program{"/bin/sh", p.env}.command(context.Background(), env, "-c", `trap "" HUP; exec "$0" serve`, p.path)
	e.cmd.Stdout, e.cmd.Stderr = e.stdout, e.stderr
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.kill)
	eventually(t, "it is ready", func() bool { return strings.Contains(e.stderr.String(), `"message":"ready"`) })
	_, rest, _ := strings.Cut(e.stdout.String(), "Lotline is listening on ")
	e.url, _, _ = strings.Cut(rest, "\n")
	if err := e.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	// An engine that is stopping accepts no new connections.
	for range 20 {
		e.must(http.StatusOK, "GET", "/livez", "", "", "Connection", "close")
	}
	if code := e.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d: %s", code, e.stderr)
	}
	if n := strings.Count(e.stderr.String(), `"message":"stopping"`); n != 1 {
		t.Errorf("it stopped %d times: %s", n, e.stderr)
	}
}

// When a terminal hangs up, the reader of the program's output may end before the program.
func TestSignals_aReaderThatIsGoneDoesNotCutTheEndShort(t *testing.T) {
	t.Parallel()
	c := testBinary(t).command(context.Background(), []string{"LOTLINE_DATA_DIR=" + dataDirectory(t), "LOTLINE_LISTEN=127.0.0.1:0", "LOTLINE_LOG_FORMAT=json"}, "serve")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr = write, write
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() }) // fails if it has ended
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	for chunk := make([]byte, 4096); !bytes.Contains(said.Bytes(), []byte(`"message":"ready"`)); {
		n, err := read.Read(chunk)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if said.Write(chunk[:n]); err == io.EOF {
			t.Fatalf("it ended: %s", said.String())
		}
	}
	if err := read.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	status, ok := c.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signaled() {
		t.Errorf("it was ended by %s", status.Signal())
	}
}

func TestSignals_sigtermEndsInOrder(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`)
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, e.stderr)
	}
	for line := range strings.Lines(e.stderr.String()) {
		if strings.Contains(line, `"level":"error"`) || strings.Contains(line, `"level":"warn"`) {
			t.Errorf("it complained: %s", line)
		}
	}
}

// A client that does not finish its request does not keep the engine from stopping.
func TestSignals_sigtermDoesNotWaitForSlowClients(t *testing.T) {
	t.Parallel()
	e := testBinary(t).serve(t, dataDirectory(t))
	key := e.secretKey()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const head = "POST /api/v1/queues HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
	if _, err := fmt.Fprintf(conn, head, key); err != nil {
		t.Fatal(err)
	}
	// The engine accepts connections in order, so now it has accepted the unfinished one.
	e.must(200, "GET", "/api/v1/queues", key, "")
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, e.stderr)
	}
}

// A start that is asked to stop before it is ready ends without an error.
func TestSignals_sigtermDuringTheStartIsNoFault(t *testing.T) {
	t.Parallel()
	for name, patience := range map[string]time.Duration{"at once": 0, "while it looks for the store": 300 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var stdout, stderr bytes.Buffer
			code := run(ctx, []string{
				"serve", "--data-dir=" + dataDirectory(t), "--listen=127.0.0.1:0",
				"--eventstore=esdb://127.0.0.1:1?tls=false", "--master-key=" + hex.EncodeToString(make([]byte, 32)),
			}, &stdout, &stderr)
			if code != 0 || stdout.Len() > 0 || stderr.Len() > 0 {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
			}
		})
	}
}
