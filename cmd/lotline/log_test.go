package main

import (
	"errors"
	"io"
	"math"
	"path/filepath"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"github.com/lotline/lotline/cmd/lotline/ledger"
	"github.com/lotline/lotline/domain"
)

// officialClient connects EventStoreDB's official client to the engine's socket.
func officialClient(t testing.TB, dir string) *esdb.Client {
	t.Helper()
	c := dialSocket(t, dir)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func dialSocket(t testing.TB, dir string) *esdb.Client {
	t.Helper()
	c, err := ledger.Dial(filepath.Join(dir, socketFile))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eventsOf reads a distribution's stream with the official client.
func eventsOf(t testing.TB, c *esdb.Client, id string) []*esdb.RecordedEvent {
	t.Helper()
	read, err := c.ReadStream(t.Context(), domain.ID(id).Stream(), esdb.ReadStreamOptions{From: esdb.Start{}}, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	var out []*esdb.RecordedEvent
	for {
		e, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Event)
	}
}

// lines returns everything that is stored of events, as one text for each, to compare.
func lines(events []*esdb.RecordedEvent) []string {
	var out []string
	for _, e := range events {
		out = append(out, ledger.Line(e))
	}
	return out
}

// checkChain recomputes the hash chain as docs/integrity.md describes it.
func checkChain(t *testing.T, events []*esdb.RecordedEvent) {
	t.Helper()
	prev := ""
	for _, e := range events {
		metadata, hash, ok := domain.SplitHash(e.UserMetadata)
		if !ok || hash != domain.EventHash(e.EventID, e.EventType, e.StreamID, domain.Revision(e.EventNumber), e.Data, metadata, prev) {
			t.Errorf("%s@%d: the chain is broken", e.StreamID, e.EventNumber)
		}
		prev = hash
	}
}

// inTheLog folds a stream from the log. The fold checks the stream.
func inTheLog(t *testing.T, l *log, stream string) *domain.History {
	t.Helper()
	h := domain.NewHistory(stream)
	for r, err := range l.Read(t.Context(), stream, domain.NoStream) {
		if err == nil {
			err = h.Apply(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// readAll reads the log in a data directory.
func readAll(t testing.TB, dir string) (all []*esdb.RecordedEvent) {
	t.Helper()
	c := officialClient(t, dir)
	read, err := c.ReadAll(t.Context(), esdb.ReadAllOptions{Direction: esdb.Forwards, From: esdb.Start{}}, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	for {
		e, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Event)
	}
}

func closeLog(t *testing.T, l *log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
