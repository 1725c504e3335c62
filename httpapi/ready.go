package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/lotline/lotline/domain"
)

// Check is what was found out about one part of the node. Everybody sees the name and
// the reason, secret keys see the error as well, and operators see all of it.
type Check struct {
	Name string
	// Err is nil when the part is as it should be.
	Err error
	// Reason says in general words why the part is not as it should be: without ids,
	// addresses, and texts of other programs. "" stands for someReason.
	Reason string
	// Detail is more about the part, to be encoded as JSON; may be nil. It is about all
	// organizations together.
	Detail any
	// Advisory says that Err does not make the node not ready.
	Advisory bool
}

// someReason is told of a part that gives no reason of its own.
const someReason = "it is not as it should be"

// readyTimeout is how long the parts may take to say how they are.
const readyTimeout = 2 * time.Second

// live answers as long as the process can answer at all.
func (s *server) live(x *exchange, r *http.Request) error {
	x.json(r, http.StatusOK, typeJSON, []byte(`{"status":"live"}`))
	return nil
}

// metrics shows the node's figures to whoever collects them.
func (s *server) metrics(x *exchange, r *http.Request) error {
	s.Metrics.ServeHTTP(x, r)
	return nil
}

// reader says how much of what is found out a reader of /readyz may see. Its zero
// value may see what everybody may.
type reader struct {
	operator     bool
	organization domain.ID // whose secret key was shown, or ""
}

// ready says whether the node should be sent requests, and how each part is.
func (s *server) ready(x *exchange, r *http.Request) error {
	return s.showReadiness(x, r, s.reader(x, r))
}

// readyForOperators says the same where only operators can ask.
func (s *server) readyForOperators(x *exchange, r *http.Request) error {
	return s.showReadiness(x, r, reader{operator: true})
}

// reader finds out who asks for /readyz. A key that does not hold, or has spent its
// limit, makes no health check fail: its bearer sees what everybody may. It is counted
// all the same, so that nobody can try more keys here than elsewhere.
func (s *server) reader(x *exchange, r *http.Request) reader {
	if len(r.Header["Authorization"]) == 0 || s.CaughtUp == nil || !s.CaughtUp() {
		return reader{} // or it is not known yet which keys hold
	}
	err := s.admitSecret(x, r)
	if over := s.count(x, r); err != nil || over != nil {
		return reader{}
	}
	return reader{organization: x.organization.ID}
}

// showReadiness answers with how each part is, as far as the reader may see it.
//
// Histories in quarantine do not make the node not ready. Whoever asks wants to know
// where to send requests, and no other node serves these streams either, since all
// read the same log: one broken stream of one organization would take every node out
// of service, for everybody.
func (s *server) showReadiness(x *exchange, r *http.Request, to reader) error {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	a := readiness{Status: "ready", Checks: map[string]checkState{}}
	status := http.StatusOK
	for _, c := range s.Ready(ctx) {
		a.Checks[c.Name] = c.shownTo(to)
		if c.Err != nil && !c.Advisory {
			a.Status, status = "not ready", http.StatusServiceUnavailable
		}
	}
	a.Checks["histories"] = s.histories(to)
	x.json(r, status, typeJSON, encode(a))
	return nil
}

func (c Check) shownTo(to reader) checkState {
	state := checkState{OK: c.Err == nil}
	if c.Err != nil {
		state.Reason = cmp.Or(c.Reason, someReason)
	}
	if c.Err != nil && (to.operator || to.organization != "") {
		state.Error = c.Err.Error()
	}
	if to.operator {
		state.Detail = c.Detail
	}
	return state
}

// maxNamed is how many streams in quarantine are named.
const maxNamed = 100

// histories is how the streams are. Each is named to operators and to its own
// organization. Other organizations' are counted.
func (s *server) histories(to reader) checkState {
	if s.Views == nil { // the node is starting
		return checkState{Reason: "nothing is known of them yet"}
	}
	broken := s.Views.Quarantined()
	if len(broken) == 0 {
		return checkState{OK: true}
	}
	state := checkState{Reason: "streams are in quarantine"}
	if to == (reader{}) {
		return state
	}
	state.Count = len(broken)
	for _, b := range broken {
		if len(state.Quarantined) < maxNamed && (to.operator || s.owns(to.organization, b.Stream)) {
			state.Quarantined = append(state.Quarantined, quarantine{b.Stream, b.Revision, b.Type, b.Rule})
		}
	}
	return state
}

func (s *server) owns(organization domain.ID, stream string) bool {
	id, err := domain.StreamID(stream)
	if err != nil {
		return false // the engine's own
	}
	_, owned := s.Views.Owned(organization, id)
	return owned
}

type readiness struct {
	Status string                `json:"status"`
	Checks map[string]checkState `json:"checks"`
}

type checkState struct {
	OK          bool         `json:"ok"`
	Reason      string       `json:"reason,omitempty"`
	Error       string       `json:"error,omitempty"`
	Detail      any          `json:"detail,omitempty"`
	Quarantined []quarantine `json:"quarantined,omitempty"`
	Count       int          `json:"count,omitempty"` // of quarantined streams, named or not
}

// quarantine is a stream that nothing is served from.
type quarantine struct {
	Stream   string          `json:"stream"`
	Revision domain.Revision `json:"revision"`
	Type     string          `json:"type"`
	Rule     string          `json:"rule"`
}
