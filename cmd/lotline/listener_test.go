package main

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// While the store cannot be reached, the node answers that it is alive and what it waits
// for. It continues its start when the store can be reached.
func TestListeners_answerProbesWhileTheStartWaitsForTheStore(t *testing.T) {
	t.Parallel()
	at, store, client := freeAddress(t), freeAddress(t), newHTTPClient(t)
	get := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testSecretKey) // a key that the node does not know yet
		resp, err := client.Do(req)
		if err != nil {
			return 0, ""
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, ""
		}
		return resp.StatusCode, string(text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr lockedBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{
			"serve", "--data-dir=" + dataDirectory(t), "--listen=" + at, "--log-format=json",
			"--eventstore=esdb://" + store + "?tls=false", "--master-key=" + hex.EncodeToString(make([]byte, 32)),
		}, &stdout, &stderr)
	}()
	eventually(t, "/livez is 200", func() bool { status, _ := get("/livez"); return status == http.StatusOK })
	if status, text := get("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(text, `"eventStore":{"ok":false`) {
		t.Errorf("/readyz: %d %s", status, text)
	}
	if status, text := get("/metrics"); status != http.StatusOK || !strings.Contains(text, `lotline_ready{part="eventStore"} 0`) {
		t.Errorf("/metrics: %d %s", status, text)
	}
	if status, text := get("/api/v1/queues"); status != http.StatusServiceUnavailable || !strings.Contains(text, "READ_MODEL_IS_BEHIND") {
		t.Errorf("a list: %d %s", status, text)
	}
	eventually(t, "it says what it waits for", func() bool {
		return strings.Contains(stderr.String(), `"message":"waiting for the event store"`)
	})
	startStore(t, testBinary(t), dataDirectory(t), store, "LOTLINE_MASTER_KEY="+hex.EncodeToString(make([]byte, 32)))
	eventually(t, "it is ready", func() bool { status, _ := get("/readyz"); return status == http.StatusOK })
	if _, text := get("/metrics"); !strings.Contains(text, `lotline_ready{part="eventStore"} 1`) {
		t.Errorf("/metrics: %s", text)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

// A start that cannot listen creates no log and prints no key.
func TestListeners_takeAllAddressesBeforeAnythingElse(t *testing.T) {
	t.Parallel()
	taken, err := listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := dataDirectory(t)
	var stdout, stderr lockedBuffer
	code := run(t.Context(), []string{
		"serve", "--data-dir=" + dir, "--listen=127.0.0.1:0", "--metrics-listen=" + taken.Addr().String(),
	}, &stdout, &stderr)
	if code != exitConfig || !strings.Contains(stderr.String(), "LOTLINE_METRICS_LISTEN") || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("exit %d, %s", code, &stderr)
	}
	for _, file := range []string{eventsFile, masterKeyFile, viewsFile} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			t.Errorf("%s was made", file)
		}
	}
}

// The log says that the engine was asked to stop, and that it stopped in order.
func TestListeners_sayThatTheEngineStops(t *testing.T) {
	t.Parallel()
	e := testBinary(t).serve(t, dataDirectory(t), "LOTLINE_LOG_FORMAT=json")
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, e.stderr)
	}
	logged := e.stderr.String()
	ready, stopping, stopped := strings.Index(logged, `"message":"ready"`), strings.Index(logged, `"message":"stopping"`), strings.Index(logged, `"message":"stopped"`)
	if ready < 0 || stopping < ready || stopped < stopping {
		t.Errorf("logged %s", logged)
	}
}
