package embedded

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// childEnvironment is the environment variable that makes the test binary write to the
// store that it names.
const childEnvironment = "LOTLINE_EMBEDDED_TEST_CHILD"

// runChild appends until it is killed, and prints the id of every acknowledged event.
func runChild(path string) {
	s, err := openStore(path, time.Now)
	if err != nil {
		fmt.Fprintln(os.Stdout, "error:", err)
		os.Exit(1)
	}
	var mu sync.Mutex // guards standard output
	for writer := range 16 {
		go func() {
			for i := 0; ; i++ {
				events := proposals(1+i%3, 300)
				if _, err := s.append(context.Background(), fmt.Sprintf("s-%d-%d", writer, i%50), expectAny, events); err != nil {
					fmt.Fprintln(os.Stdout, "error:", err)
					os.Exit(1)
				}
				ids := make([]string, len(events))
				for j := range events {
					ids[j] = events[j].id.String()
				}
				mu.Lock()
				fmt.Fprintln(os.Stdout, strings.Join(ids, "\n"))
				mu.Unlock()
			}
		}()
	}
	select {}
}

func TestStore_survivesKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	acknowledged := make(map[uuid.UUID]bool)
	for round := range 2 {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), childEnvironment+"="+path)
		child.Stderr = os.Stderr
		output, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(output)
		for count := 0; lines.Scan(); count++ {
			if count == 2000+700*round {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			id, err := uuid.Parse(lines.Text())
			if err != nil {
				// The last line may be incomplete.
				if count < 2000 {
					t.Fatalf("the child said %q", lines.Text())
				}
				continue
			}
			acknowledged[id] = true
		}
		if err := child.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}

		s, err := openStore(path, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		missing := make(map[uuid.UUID]bool, len(acknowledged))
		for id := range acknowledged {
			missing[id] = true
		}
		next := make(map[string]int64)
		want := int64(1)
		for complete := false; !complete; {
			p, err := s.readAll(t.Context(), want, false, false, nil, 1<<62, pageRows)
			if err != nil {
				t.Fatal(err)
			}
			for _, event := range p.events {
				if event.position != want || event.revision != next[event.stream] {
					t.Fatalf("position %d, revision %d of %s, want %d and %d", event.position, event.revision, event.stream, want, next[event.stream])
				}
				want++
				next[event.stream]++
				delete(missing, event.id)
			}
			complete = p.complete
		}
		if len(missing) > 0 {
			t.Errorf("round %d: %d of %d acknowledged events are missing", round, len(missing), len(acknowledged))
		}
		if verdict, err := queryText(s.writer.conn, `PRAGMA integrity_check`); err != nil || verdict != "ok" {
			t.Errorf("integrity check: %s, %v", verdict, err)
		}
		t.Logf("round %d: %d acknowledged, %d in the log", round, len(acknowledged), want-1)
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
}
