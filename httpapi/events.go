package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

const (
	defaultEvents = 100
	maxEvents     = 1000
	// eventsTimeout is how long reading a page may take, and the first event of a
	// whole history.
	eventsTimeout = commandTimeout
	// readerPatience is how long a reader of the whole history may take none of
	// it. One that is merely slow takes as long as it needs.
	readerPatience = 30 * time.Second
)

// eventsRequest asks for the part of a history behind a revision.
type eventsRequest struct {
	after domain.Revision
	limit int
}

// events answers with a distribution's history: a page of it or, as lines of
// JSON, all of it. It is read from the log, so that what is deleted or in
// quarantine can be looked into as well, and secrets are in it as they are
// stored.
func (s *server) events(x *exchange, r *http.Request) error {
	id, err := pathID(r, anyKind)
	if err != nil {
		return err
	}
	lines := wantsLines(r)
	q, err := readEventsRequest(r, lines)
	if err != nil {
		return err
	}
	if err := s.awaitWrites(x, r); err != nil {
		return err
	}
	if _, owned := s.Views.Owned(x.organization.ID, id); !owned {
		return domain.Refuse(domain.DistributionNotFound, "")
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	overdue := time.AfterFunc(eventsTimeout, func() { cancel(errNoAnswer) })
	defer overdue.Stop()
	history := s.history(ctx, id.Stream(), q.after)
	if lines {
		return s.eventLines(x, r, history, overdue)
	}
	page, err := s.eventPage(x.organization.ID, history, q)
	if err != nil {
		return err
	}
	x.json(r, http.StatusOK, typeJSON, page)
	return nil
}

// eventPage is a page in the form of the other lists. Its cursors are revisions.
func (s *server) eventPage(organization domain.ID, history iter.Seq2[shownEvent, error], q eventsRequest) ([]byte, error) {
	page := []byte(`{"data":[`)
	info := pageInfo{HasPreviousPage: q.after > domain.NoStream}
	rows := 0
	for e, err := range history {
		if err != nil {
			return nil, err
		}
		if rows == q.limit {
			info.HasNextPage = true
			break
		}
		cursor := strconv.FormatInt(int64(e.Revision), 10)
		if rows == 0 {
			info.StartCursor = &cursor
		} else {
			page = append(page, ',')
		}
		info.EndCursor = &cursor
		page = s.appendEvent(page, organization, e)
		rows++
	}
	page = append(page, `],"pageInfo":`...)
	page = append(page, encode(info)...)
	return append(page, '}'), nil
}

// eventLines sends the history while it is read, so that it may be longer than
// memory. What cannot be read to its end is cut short without the end that
// HTTP gives a whole answer. overdue ends the wait for the first event.
func (s *server) eventLines(x *exchange, r *http.Request, history iter.Seq2[shownEvent, error], overdue *time.Timer) error {
	begin := func() {
		x.prepare()["Content-Type"] = typeLines
		x.WriteHeader(http.StatusOK)
	}
	if r.Method == http.MethodHead {
		begin()
		return nil
	}
	connection := http.NewResponseController(x)
	var line []byte
	for e, err := range history {
		if err != nil {
			return err
		}
		if x.status == 0 {
			overdue.Stop()
			begin()
		}
		line = append(s.appendEvent(line[:0], x.organization.ID, e), '\n')
		// Not every writer has a deadline. Without one a reader that stops
		// holds the goroutine and its place in the log, and nobody else.
		_ = connection.SetWriteDeadline(s.Clock().Add(readerPatience))
		if _, err := x.Write(line); err != nil {
			return nil // whoever asked has gone
		}
	}
	if x.status == 0 {
		begin()
	}
	return nil
}

// readEventsRequest reads which part of a history is asked for, or refuses all
// that is wrong with it at once.
func readEventsRequest(r *http.Request, lines bool) (eventsRequest, error) {
	q := eventsRequest{after: domain.NoStream, limit: defaultEvents}
	given, err := parseQuery(r)
	if err != nil {
		return q, err
	}
	var wrong []domain.Detail
	number := func(name string, least, most int64, set func(int64)) {
		values, ok := given[name]
		delete(given, name)
		if !ok {
			return
		}
		if len(values) > 1 {
			wrong = append(wrong, domain.Detail{Field: name, Message: "may be given once"})
			return
		}
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil || n < least || n > most {
			wrong = append(wrong, domain.Detail{Field: name, Message: fmt.Sprintf("must be a whole number from %d to %d", least, most)})
			return
		}
		set(n)
	}
	if lines && given.Has("limit") {
		wrong = append(wrong, domain.Detail{Field: "limit", Message: "does not go together with " + mediaLines + ", which goes on to the end"})
		delete(given, "limit")
	}
	number("after", 0, maxRevision, func(n int64) { q.after = domain.Revision(n) })
	number("limit", 1, maxEvents, func(n int64) { q.limit = int(n) })
	if wrong = append(wrong, unknownParameters(given, nil)...); len(wrong) > 0 {
		return q, invalid(wrong...)
	}
	return q, nil
}

// maxRevision is the largest number that every JSON reader takes exactly.
const maxRevision = 1<<53 - 1

// shownEvent is an event of a history with what is only known from the others.
type shownEvent struct {
	*domain.Recorded
	previous string               // the hash of the event before, "" for the first
	broken   *domain.HistoryError // the rule that this event breaks, nil for most
}

// history yields the events of a stream behind a revision, oldest first, and
// ends after the first error. It checks the chain as it goes, reports what does not
// hold, and goes on: the events are evidence. Of a stream that was cut, at its
// beginning or at its end, it yields a *domain.HistoryError.
func (s *server) history(ctx context.Context, stream string, after domain.Revision) iter.Seq2[shownEvent, error] {
	return func(yield func(shownEvent, error) bool) {
		known, quarantine := s.Views.Known(stream)
		again := projections.ReadAgain(ctx)
		if quarantine != nil {
			again = domain.Once
		}
		begin := max(after-1, domain.NoStream)
		head := domain.Head{Revision: begin}
		read := func(after domain.Revision) iter.Seq2[*domain.Recorded, error] {
			return s.Histories.Read(ctx, stream, after)
		}
		// It begins with the event before, for its hash.
		for r, err := range domain.ReadWhole(stream, begin, known, read, again) {
			if err == nil && head == domain.EmptyHead() && r.Revision > 0 {
				_, err = head.Next(stream, r)
			}
			if err != nil {
				s.report(err)
				yield(shownEvent{}, err)
				return
			}
			e := shownEvent{Recorded: r, previous: head.Hash}
			if r.Revision > after {
				_, err := head.Next(stream, r)
				s.report(err)
				e.broken, _ = errors.AsType[*domain.HistoryError](err)
				if quarantine != nil && quarantine.Revision == r.Revision {
					e.broken = quarantine
				}
				if !yield(e, nil) {
					return
				}
			}
			// What follows is held against what is stored here, whether or not that holds.
			head.Revision = r.Revision
			_, head.Hash, _ = domain.SplitHash(r.RawMetadata)
		}
	}
}

// report tells the read models of a history that was found inconsistent.
func (s *server) report(err error) {
	if broken, ok := errors.AsType[*domain.HistoryError](err); ok {
		s.Views.Quarantine(broken)
	}
}

// appendEvent appends an event as an auditor gets it. data and metadata are the
// stored bytes, because the hashes are of these.
func (s *server) appendEvent(dst []byte, organization domain.ID, e shownEvent) []byte {
	head := encode(eventHead{
		ID:            domain.NewID("evt", e.ID),
		Type:          e.Type,
		SchemaVersion: e.Metadata.SchemaVersion,
		Revision:      e.Revision,
		Position:      s.formatPosition(organization, e.Position),
		RecordedAt:    domain.InstantOf(e.RecordedAt).String(),
	})
	dst = append(dst, head[:len(head)-1]...)
	dst = appendStored(dst, "data", e.Data)
	metadata := e.RawMetadata
	if _, hash, ok := domain.SplitHash(metadata); ok {
		metadata = make([]byte, 0, len(e.RawMetadata)+len(e.previous)+len(hash))
		metadata = append(metadata, e.RawMetadata[:len(e.RawMetadata)-1]...)
		metadata = append(metadata, `,"prevHash":"`+e.previous+`"}`...)
	}
	dst = appendStored(dst, "metadata", metadata)
	if e.broken != nil {
		dst = append(dst, `,"problem":`...)
		dst = append(dst, encode(eventProblem{e.broken.Rule, e.broken.Detail})...)
	}
	return append(dst, '}')
}

// eventHead are an event's members before data and metadata.
type eventHead struct {
	ID            domain.ID       `json:"id"`
	Type          string          `json:"type"`
	SchemaVersion int             `json:"schemaVersion"`
	Revision      domain.Revision `json:"revision"`
	Position      string          `json:"position"`   // as X-Position has it
	RecordedAt    string          `json:"recordedAt"` // by the store's clock, whatever that showed
}

// eventProblem is what is wrong with the event at which a history was put into
// quarantine.
type eventProblem struct {
	Rule   string `json:"rule"`
	Detail string `json:"detail"`
}

// appendStored appends a member that holds stored bytes as they are. Anybody can
// append to the store: bytes that would not stand on one line of JSON are null,
// and come in base64 beside it.
func appendStored(dst []byte, name string, stored []byte) []byte {
	dst = append(dst, `,"`+name+`":`...)
	if oneLine(stored) {
		return append(dst, stored...)
	}
	dst = append(dst, `null,"`+name+`Base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, stored)
	return append(dst, '"')
}

// oneLine reports whether b is a JSON text without line breaks.
func oneLine(b []byte) bool {
	for _, c := range b {
		if c == '\n' || c == '\r' {
			return false
		}
	}
	return json.Valid(b) && utf8.Valid(b)
}
