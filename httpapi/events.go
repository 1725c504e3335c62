package httpapi

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"time"

	"github.com/lotline/lotline/domain"
)

const (
	defaultEvents = 100
	maxEvents     = 1000
	// eventsTimeout is how long reading a page may take. For lines it is how long reading
	// the first event may take.
	eventsTimeout = commandTimeout
	// lineTimeout is how long a client of lines may take to receive one line. The whole
	// answer may take any time.
	lineTimeout = 30 * time.Second
)

// eventsRequest asks for the part of a history after a revision.
type eventsRequest struct {
	after domain.Revision
	limit int
}

// events answers with a distribution's history: a page of it, or all of it as lines of
// JSON. It reads the log and not the read models, so it also serves the history of a
// distribution that is deleted or in quarantine. Secrets in the events stay encrypted, as
// they are stored.
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

// eventPage reads one page of a history. The page has the form of the other lists, and its
// cursors are revisions.
func (s *server) eventPage(organization domain.ID, history iter.Seq2[historyEvent, error], q eventsRequest) ([]byte, error) {
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

// eventLines sends a history while it reads it, so the history may be larger than memory.
// If reading fails in the middle, the answer breaks off without the regular end of an HTTP
// answer, so the client can tell that it is incomplete. overdue is the timer that limits
// the wait for the first event.
func (s *server) eventLines(x *exchange, r *http.Request, history iter.Seq2[historyEvent, error], overdue *time.Timer) error {
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
		// Some writers do not support deadlines. Then a client that stops reading
		// blocks this goroutine, but no other request.
		_ = connection.SetWriteDeadline(s.Clock().Add(lineTimeout))
		if _, err := x.Write(line); err != nil {
			return nil // the client has gone
		}
	}
	if x.status == 0 {
		begin()
	}
	return nil
}

// readEventsRequest reads the query parameters of a request for events. A refusal lists
// every parameter that is wrong.
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

// maxRevision is the largest whole number that every JSON reader can read exactly.
const maxRevision = 1<<53 - 1
