package httpapi

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// auditEvent is an event in the form of the answers.
type auditEvent struct {
	ID            string
	Type          string
	SchemaVersion int
	Revision      int64
	Position      string
	RecordedAt    string
	Data          json.RawMessage
	DataBase64    string
	Metadata      json.RawMessage
	Problem       *struct{ Rule, Detail string }
}

type auditPage struct {
	Data     []auditEvent
	PageInfo pageInfo
}

func readAs[T any](tb testing.TB, b []byte) T {
	tb.Helper()
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		tb.Fatalf("%v: %s", err, b)
	}
	return v
}

func (w *world) eventPage(id, query string) auditPage {
	w.tb.Helper()
	return readAs[auditPage](w.tb, w.do(http.MethodGet, eventsPath(id)+query, "").is(http.StatusOK).Body.Bytes())
}

func (w *world) eventLines(id, query string) []auditEvent {
	w.tb.Helper()
	a := w.do(http.MethodGet, eventsPath(id)+query, "", accepting(mediaLines)).is(http.StatusOK)
	if got := a.Header().Get("Content-Type"); got != mediaLines {
		w.tb.Errorf("Content-Type %q", got)
	}
	if !strings.HasSuffix(a.Body.String(), "\n") {
		w.tb.Errorf("the last line does not end: %s", a.Body)
	}
	var all []auditEvent
	for line := range strings.Lines(a.Body.String()) {
		all = append(all, readAs[auditEvent](w.tb, []byte(line)))
	}
	return all
}

func eventsPath(id string) string { return "/api/v1/distributions/" + id + "/events" }

func accepting(accept string) option { return header("Accept", accept) }

// aLife creates a queue with a history of six events.
func aLife(w *world) (path, id string) {
	w.tb.Helper()
	path, id = w.create("queues", `{"sequenceId":"s","name":"<b>","openAt":"2026-03-01T14:00:00Z"}`, header("X-Request-Id", "first"))
	w.do(http.MethodPut, path, `{"maxCapacity":7}`, header("X-Request-Id", "second")).is(http.StatusOK)
	w.advance(2 * time.Hour)
	w.do(http.MethodPost, path+"/open", "").refuses(http.StatusConflict, "Invalid status transition")
	w.do(http.MethodPost, path+"/close", "", key(mySecond)).is(http.StatusOK)
	return path, id
}

func TestEvents_containEveryEventInOrderWithItsMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := aLife(w)
	page := w.eventPage(id, "")
	stored := w.log.streams[domain.ID(id).Stream()]
	if len(page.Data) != len(stored) || len(stored) < 6 {
		t.Fatalf("%d events, stored %d", len(page.Data), len(stored))
	}
	for i, e := range page.Data {
		r := stored[i]
		if e.ID != "evt_"+domain.Base32(r.ID) || e.Type != r.Type || e.Revision != int64(i) || string(e.Data) != string(r.Data) {
			t.Errorf("event %d is %+v, stored %+v", i, e, r)
		}
		if want := r.RecordedAt.UTC().Format("2006-01-02T15:04:05.000Z"); e.RecordedAt != want {
			t.Errorf("event %d: recordedAt %s, want %s", i, e.RecordedAt, want)
		}
		w.do(http.MethodGet, "/api/v1/distributions", "", header("X-Position", e.Position)).is(http.StatusOK)
		m := readAs[map[string]any](t, e.Metadata)
		if m["prevHash"] != previousHash(stored, i) || m["$correlationId"] != r.Metadata.CorrelationID || m["$causationId"] != r.Metadata.CausationID {
			t.Errorf("event %d: metadata %s", i, e.Metadata)
		}
	}
	first, second := readAs[domain.Metadata](t, page.Data[0].Metadata), readAs[domain.Metadata](t, page.Data[2].Metadata)
	if first.RequestID != "first" || first.Actor != string(w.myKeyID) || second.RequestID != "second" {
		t.Errorf("metadata %+v, then %+v", first, second)
	}
	if page.PageInfo.HasNextPage || page.PageInfo.HasPreviousPage || *page.PageInfo.StartCursor != "0" || *page.PageInfo.EndCursor != strconv.Itoa(len(stored)-1) {
		t.Errorf("pageInfo %+v", page.PageInfo)
	}
	if got := w.eventLines(id, ""); len(got) != len(page.Data) || got[3].ID != page.Data[3].ID {
		t.Errorf("as lines: %+v", got)
	}
}

func previousHash(stored []*domain.Recorded, i int) string {
	if i == 0 {
		return ""
	}
	_, hash, _ := domain.SplitHash(stored[i-1].RawMetadata)
	return hash
}

func TestEvents_pagesFollowEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := aLife(w)
	all := w.eventPage(id, "").Data
	var got []string
	query := "?limit=2"
	for {
		page := w.eventPage(id, query)
		for _, e := range page.Data {
			got = append(got, e.ID)
		}
		if page.PageInfo.HasPreviousPage != strings.Contains(query, "after") {
			t.Errorf("%s: %+v", query, page.PageInfo)
		}
		if !page.PageInfo.HasNextPage {
			break
		}
		query = "?limit=2&after=" + *page.PageInfo.EndCursor
	}
	want := make([]string, 0, len(all))
	for _, e := range all {
		want = append(want, e.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("in pages %v, at once %v", got, want)
	}
	for _, after := range []string{strconv.Itoa(len(all) - 1), strconv.Itoa(len(all)), strconv.Itoa(maxRevision)} {
		if page := w.eventPage(id, "?after="+after); page.Data == nil || len(page.Data) > 0 || page.PageInfo.EndCursor != nil || page.PageInfo.HasNextPage {
			t.Errorf("after %s: %+v", after, page)
		}
	}
	if got := w.eventLines(id, "?after=1"); len(got) != len(all)-2 || got[0].Revision != 2 {
		t.Errorf("lines after 1: %+v", got)
	}
	if a := w.do(http.MethodGet, eventsPath(id)+"?after=99", "", accepting(mediaLines)).is(http.StatusOK); a.Body.Len() > 0 {
		t.Errorf("lines behind the end: %s", a.Body)
	}
	if a := w.do(http.MethodHead, eventsPath(id), "", accepting(mediaLines)).is(http.StatusOK); a.Body.Len() > 0 || a.Header().Get("Content-Type") != mediaLines {
		t.Errorf("HEAD: %v %s", a.Header(), a.Body)
	}
}

func TestEvents_pageSizeHasLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := w.create("queues", kindCases[0].body)
	w.config.Histories = &longHistory{stream: domain.ID(id).Stream(), events: 1200, size: 1}
	w.api = New(w.config)
	if page := w.eventPage(id, ""); len(page.Data) != 100 || !page.PageInfo.HasNextPage {
		t.Errorf("by default %d, %+v", len(page.Data), page.PageInfo)
	}
	if page := w.eventPage(id, "?limit=1000"); len(page.Data) != 1000 || !page.PageInfo.HasNextPage {
		t.Errorf("at most %d, %+v", len(page.Data), page.PageInfo)
	}
	if got := w.eventLines(id, ""); len(got) != 1200 {
		t.Errorf("%d lines", len(got))
	}
}

func TestEvents_badParametersAreAllNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := w.create("queues", kindCases[0].body)
	for query, fields := range map[string][]string{
		"limit=0":                 {"limit"},
		"limit=1001":              {"limit"},
		"limit=":                  {"limit"},
		"limit=1.5":               {"limit"},
		"after=-1":                {"after"},
		"after=9007199254740992":  {"after"},
		"after=1&after=2":         {"after"},
		"after=x&limit=y&first=3": {"after", "limit", "first"},
		"%zz":                     {"query"},
	} {
		w.do(http.MethodGet, eventsPath(id)+"?"+query, "").blames(fields...)
	}
	w.do(http.MethodGet, eventsPath(id)+"?limit=3", "", accepting(mediaLines)).blames("limit")
}

func TestEvents_answerInJSONAndLinesAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := w.create("queues", kindCases[0].body)
	for accept, want := range map[string]string{
		"*/*": "application/json; charset=utf-8",
		"application/x-ndjson;q=0.5, application/json": "application/json; charset=utf-8",
		"application/x-ndjson, */*":                    mediaLines,
		"application/json;q=0.1, application/x-ndjson": mediaLines,
	} {
		if got := w.do(http.MethodGet, eventsPath(id), "", accepting(accept)).is(http.StatusOK).Header().Get("Content-Type"); got != want {
			t.Errorf("%s gets %s, want %s", accept, got, want)
		}
	}
	for _, accept := range []string{"text/html", "application/x-ndjson;q=0"} {
		w.do(http.MethodGet, eventsPath(id), "", accepting(accept)).refuses(http.StatusNotAcceptable, "Not acceptable")
	}
	w.do(http.MethodGet, "/api/v1/distributions/"+id, "", accepting(mediaLines)).refuses(http.StatusNotAcceptable, "Not acceptable")
	w.do(http.MethodPost, eventsPath(id), "").refuses(http.StatusMethodNotAllowed, "Method not allowed")
}

func TestEvents_deletedDistributionsStayReadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, id := w.create("queues", kindCases[0].body)
	w.do(http.MethodDelete, path, "").is(http.StatusNoContent)
	w.do(http.MethodGet, path, "").refuses(http.StatusNotFound, "Queue not found")
	for _, got := range [][]auditEvent{w.eventPage(id, "").Data, w.eventLines(id, "")} {
		if len(got) != 2 || !strings.Contains(got[1].Type, "Deleted") {
			t.Errorf("got %+v", got)
		}
	}
}

func TestEvents_areForTheOwnerOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := w.create("queues", kindCases[0].body)
	deleted, gone := w.create("queues", kindCases[0].body)
	w.do(http.MethodDelete, deleted, "").is(http.StatusNoContent)
	unknown := string(domain.NewID("queue", uuid.New()))
	for _, id := range []string{id, gone, unknown, "queue_x", string(w.other), string(w.mine)} {
		for _, accept := range []string{"*/*", mediaLines} {
			w.do(http.MethodGet, eventsPath(id), "", key(otherKey), accepting(accept)).refuses(http.StatusNotFound, "Distribution not found")
		}
	}
	w.do(http.MethodGet, eventsPath(id), "", key(unknownKey)).refuses(http.StatusUnauthorized, "Authentication required")
	w.do(http.MethodGet, eventsPath(id), "", key(myPublic)).refuses(http.StatusUnauthorized, "Secret key required")
}

func TestEvents_ofAQuarantinedStreamMarkTheBrokenEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, id := aLife(w)
	stream := domain.ID(id).Stream()
	at := len(w.log.streams[stream])
	w.log.corrupt(stream)
	w.log.corrupt(stream)
	w.do(http.MethodGet, path, "").refuses(http.StatusInternalServerError, "Distribution history is inconsistent")
	for _, got := range [][]auditEvent{w.eventPage(id, "").Data, w.eventLines(id, "")} {
		if len(got) != at+2 {
			t.Fatalf("%d events", len(got))
		}
		for i, e := range got {
			if (e.Problem != nil) != (i == at) {
				t.Errorf("event %d: problem %+v", i, e.Problem)
			}
		}
		if p := got[at].Problem; p.Rule == "" || p.Detail == "" {
			t.Errorf("problem %+v", p)
		}
	}
	w.do(http.MethodGet, eventsPath(id), "", key(otherKey)).refuses(http.StatusNotFound, "Distribution not found")
}

// Other programs that can reach the store can append any bytes to it.
func TestEvents_bytesThatAreNotOneLineOfJSONComeInBase64(t *testing.T) {
	t.Parallel()
	for _, stored := range []string{"", "{", "{}\n", "{\n}", "\xff", "\"\xff\"", `{"a":1}{"b":2}`} {
		got := readAs[auditEvent](t, append(appendStored([]byte(`{"id":"evt"`), "data", []byte(stored)), '}'))
		back, err := base64.StdEncoding.DecodeString(got.DataBase64)
		if string(got.Data) != "null" || string(back) != stored || err != nil {
			t.Errorf("%q came as %s and %q", stored, got.Data, got.DataBase64)
		}
	}
	for _, stored := range []string{`{}`, `{ "ü" : "<\u0000>" }`, `1e400`} {
		if got := string(appendStored(nil, "data", []byte(stored))); got != `,"data":`+stored {
			t.Errorf("%q came as %s", stored, got)
		}
	}
}

// recompute checks the hashes of an answer as docs/integrity.md describes it, without any
// code of the engine. It returns the last hash.
func recompute(t *testing.T, stream, prev string, events []auditEvent) string {
	t.Helper()
	for _, e := range events {
		at := strings.LastIndex(string(e.Metadata), `,"hash":"`)
		tail := readAs[struct{ Hash, PrevHash string }](t, append([]byte("{"), e.Metadata[at+1:]...))
		if tail.PrevHash != prev {
			t.Errorf("revision %d: prevHash %q, want %q", e.Revision, tail.PrevHash, prev)
		}
		var input []byte
		for _, part := range [][]byte{
			uuidOf(t, e.ID), []byte(e.Type), []byte(stream), []byte(strconv.FormatInt(e.Revision, 10)),
			e.Data, append(slices.Clone(e.Metadata[:at]), '}'), []byte(prev),
		} {
			input = append(binary.BigEndian.AppendUint64(input, uint64(len(part))), part...)
		}
		sum := sha256.Sum256(input)
		if got := base64.RawURLEncoding.EncodeToString(sum[:]); got != tail.Hash {
			t.Errorf("revision %d: recomputed %s, answered %s", e.Revision, got, tail.Hash)
		}
		prev = tail.Hash
	}
	return prev
}

// uuidOf decodes the base32 form of an event's UUID.
func uuidOf(t *testing.T, id string) []byte {
	t.Helper()
	var n [2]uint64
	for _, c := range strings.TrimPrefix(id, "evt_") {
		digit := strings.IndexRune("0123456789abcdefghjkmnpqrstvwxyz", c)
		if digit < 0 {
			t.Fatalf("%q is not an event's id", id)
		}
		n[0] = n[0]<<5 | n[1]>>59
		n[1] = n[1]<<5 | uint64(digit)
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, n[0]), n[1])
}

func TestEvents_theHashChainIsRecomputedFromTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := aLife(w)
	stream := "queue-" + strings.TrimPrefix(id, "queue_")
	whole := recompute(t, stream, "", w.eventPage(id, "").Data)
	if got := recompute(t, stream, "", w.eventLines(id, "")); got != whole {
		t.Errorf("by lines %s, by the page %s", got, whole)
	}
	begin := recompute(t, stream, "", w.eventPage(id, "?limit=3").Data)
	if got := recompute(t, stream, begin, w.eventPage(id, "?after=2").Data); got != whole {
		t.Errorf("in two pages %s, in one %s", got, whole)
	}
}

// longHistory is a log with many events, which it makes when they are read. It may fail
// after the last one.
type longHistory struct {
	stream string
	events int
	size   int
	err    error // what reading ends with, or nil
	asked  atomic.Int64
	ended  chan struct{}
}

func (h *longHistory) Read(_ context.Context, _ string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		if h.ended != nil {
			defer close(h.ended)
		}
		data := fmt.Appendf(nil, "%q", strings.Repeat("x", h.size))
		for i := after + 1; i < domain.Revision(h.events); i++ {
			h.asked.Add(1)
			if !yield(&domain.Recorded{ID: uuid.New(), Stream: h.stream, Revision: i, RecordedAt: time.Now(), Data: data, RawMetadata: []byte(`{}`)}, nil) {
				return
			}
		}
		if h.err != nil {
			yield(nil, h.err)
		}
	}
}

// overHTTP serves the API on a real connection and requests the lines of a history. The body
// of the answer is closed at the end of the test.
func overHTTP(w *world, h *longHistory) io.Reader {
	w.tb.Helper()
	_, id := w.create("queues", kindCases[0].body)
	w.config.Histories = h
	server := httptest.NewServer(New(w.config))
	w.tb.Cleanup(server.Close)
	r, err := http.NewRequestWithContext(w.tb.Context(), http.MethodGet, server.URL+eventsPath(id), http.NoBody)
	if err != nil {
		w.tb.Fatal(err)
	}
	r.Header.Set("Accept", mediaLines)
	r.Header.Set("Authorization", "Bearer "+myKey)
	client := server.Client()
	w.tb.Cleanup(client.CloseIdleConnections)
	a, err := client.Do(r)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.tb.Cleanup(func() { a.Body.Close() })
	return a.Body
}

func TestEventLines_aSlowClientSlowsTheReadingAndGetsAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Clock = time.Now })
	// This is more than the buffers of a connection can hold.
	h := &longHistory{events: 40_000, size: 1 << 10}
	body := overHTTP(w, h)
	got := bufio.NewScanner(body)
	for n := range h.events {
		if !got.Scan() {
			t.Fatalf("it ended after %d lines: %v", n, got.Err())
		}
		if n == 0 && h.asked.Load() == int64(h.events) {
			t.Fatal("the whole history was read before the first line was taken")
		}
	}
	if got.Scan() || got.Err() != nil {
		t.Errorf("behind the end: %q, %v", got.Text(), got.Err())
	}
}

func TestEventLines_aClientThatStopsReadingIsDisconnected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) {
		c.Clock = func() time.Time { return time.Now().Add(300*time.Millisecond - lineTimeout) }
	})
	h := &longHistory{events: 1_000_000, size: 1 << 10, ended: make(chan struct{})}
	overHTTP(w, h)
	select {
	case <-h.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("it is still waited for")
	}
	if strings.Contains(w.logged.String(), `"level":"error"`) {
		t.Errorf("logged as ours: %s", w.logged)
	}
}

func TestEventLines_cutShortByAFaultHaveNoEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Clock = time.Now })
	body := overHTTP(w, &longHistory{events: 3000, size: 100, err: fmt.Errorf("read: %w", domain.ErrUnavailable)})
	got := bufio.NewReader(body)
	for n := 0; ; n++ {
		line, err := got.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			t.Fatalf("%d lines look like all of them", n)
		}
		if err != nil {
			break
		}
		readAs[auditEvent](t, line)
	}
	within(t, "the fault is logged", func() bool {
		return strings.Contains(w.logged.String(), `"error":"read: the event store is unavailable"`)
	})
}

func within(t *testing.T, what string, reached func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !reached() {
		select {
		case <-deadline:
			t.Fatalf("it did not happen that %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// silence is a log whose store does not answer.
type silence struct{}

func (silence) Read(ctx context.Context, stream string, _ domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		<-ctx.Done()
		yield(nil, fmt.Errorf("read %s: %w: %w", stream, domain.ErrUnavailable, context.Cause(ctx)))
	}
}

// A page and lines both fail when the store does not answer in time.
func TestEvents_failIfTheStoreDoesNotAnswerInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := w.create("queues", kindCases[0].body)
	w.config.Histories = silence{}
	w.api = New(w.config)
	for _, media := range []string{mediaJSON, mediaLines} {
		synctest.Test(t, func(*testing.T) {
			began := time.Now()
			a := w.do(http.MethodGet, eventsPath(id), "", accepting(media)).refuses(http.StatusServiceUnavailable, "Event store unavailable")
			if took := time.Since(began); took != 5*time.Second {
				t.Errorf("%s: it is given up after %s", media, took)
			}
			if got := a.failure().Message; got != "" {
				t.Errorf("%s: the answer is %q", media, got)
			}
		})
	}
	if line := w.logged.String(); strings.Count(line, "the store did not answer within 5s") != 2 {
		t.Errorf("logged %s", line)
	}
}

// A slow store does not end the lines once the first event was read.
func TestEventLines_mayTakeAnyTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := w.create("queues", kindCases[0].body)
	w.config.Histories = slowly{&longHistory{events: 4, size: 1}}
	w.api = New(w.config)
	synctest.Test(t, func(*testing.T) {
		a := w.do(http.MethodGet, eventsPath(id), "", accepting(mediaLines)).is(http.StatusOK)
		if n := strings.Count(a.Body.String(), "\n"); n != 4 {
			t.Errorf("%d lines", n)
		}
	})
}

// slowly is a log that yields an event every four seconds.
type slowly struct{ *longHistory }

func (h slowly) Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		for r, err := range h.longHistory.Read(ctx, stream, after) {
			select {
			case <-time.After(4 * time.Second):
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func TestEvents_withoutTheStoreAreUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := w.create("queues", kindCases[0].body)
	for _, events := range []int{0, 3} {
		w.config.Histories = &longHistory{events: events, err: fmt.Errorf("read: %w: %w", domain.ErrUnavailable, errors.New("gone"))}
		w.api = New(w.config)
		w.do(http.MethodGet, eventsPath(id), "").refuses(http.StatusServiceUnavailable, "Event store unavailable")
	}
	w.config.Histories = &longHistory{err: domain.ErrUnavailable}
	w.api = New(w.config)
	a := w.do(http.MethodGet, eventsPath(id), "", accepting(mediaLines)).refuses(http.StatusServiceUnavailable, "Event store unavailable")
	if a.Header().Get("Retry-After") == "" || a.Header().Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("headers %v", a.Header())
	}
}
