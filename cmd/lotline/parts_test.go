package main

import (
	"path"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// A process that dies between two parts of an outcome leaves a log that ends with
// the first. The next one goes on with it by itself, though nothing else happens.
func TestServe_goesOnWithAnOutcomeThatACrashCutInTwo(t *testing.T) {
	t.Parallel()
	s := &settings{DataDir: dataDirectory(t)}
	e := testBinary(t).serve(t, s.DataDir)
	key := e.secretKey()
	queue := e.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q}`, in(-1000))).header.Get("Location")
	e.kill()
	closeInPart(t, s, domain.ID(path.Base(queue)).Stream())
	e = testBinary(t).serve(t, s.DataDir)
	eventually(t, "the rest is done", func() bool {
		return e.must(200, "GET", queue, key, "").object(t)["status"] == "COMPLETED"
	})
}

// closeInPart closes a queue by hand, with the first only of what is due then.
func closeInPart(t *testing.T, s *settings, stream string) {
	t.Helper()
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLog(t.Context(), s, dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l.dir = dir
	defer closeLog(t, l)
	h := inTheLog(t, l, stream)
	head, now := h.Head, h.At(domain.InstantOf(time.Now()))
	events, err := h.Decide(now, domain.Step{To: domain.StatusClosed})
	if err != nil {
		t.Fatal(err)
	}
	for due, err := range h.Advance(now) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, due...)
		break
	}
	m := domain.Metadata{CommandID: uuid.NewString(), Actor: domain.ActorOperator}
	var part []domain.Proposed
	for _, event := range events {
		p, err := l.Encode(stream, event, m)
		if err != nil {
			t.Fatal(err)
		}
		p.ID = uuid.New()
		part = append(part, p)
	}
	if _, _, err := l.Append(t.Context(), stream, head, part); err != nil {
		t.Fatal(err)
	}
}

func closeLog(t *testing.T, l *log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
