package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/lotline/lotline/domain"
)

// Check is what was found out about one part of the node.
type Check struct {
	Name   string
	Err    error // nil when the part is as it should be
	Detail any   // more about it, to be encoded as JSON; may be nil
	// Advisory says that Err does not make the node not ready.
	Advisory bool
}

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

// ready says whether the node should be sent requests, and how each part is.
//
// Histories in quarantine are named, but do not make the node not ready. Whoever
// asks wants to know where to send requests, and no other node serves these
// streams either, since all read the same log: one broken stream of one
// organization would take every node out of service, for everybody.
func (s *server) ready(x *exchange, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	a := readiness{Status: "ready", Checks: map[string]checkState{}}
	status := http.StatusOK
	for _, c := range s.Ready(ctx) {
		state := checkState{OK: c.Err == nil, Detail: c.Detail}
		if c.Err != nil {
			state.Error = c.Err.Error()
			if !c.Advisory {
				a.Status, status = "not ready", http.StatusServiceUnavailable
			}
		}
		a.Checks[c.Name] = state
	}
	a.Checks["histories"] = checkState{Error: "nothing is known of them yet"}
	if s.Views != nil { // or the node is starting
		a.Checks["histories"] = historyState(s.Views.Quarantined())
	}
	x.json(r, status, typeJSON, encode(a))
	return nil
}

type readiness struct {
	Status string                `json:"status"`
	Checks map[string]checkState `json:"checks"`
}

type checkState struct {
	OK          bool         `json:"ok"`
	Error       string       `json:"error,omitempty"`
	Detail      any          `json:"detail,omitempty"`
	Quarantined []quarantine `json:"quarantined,omitempty"`
	Count       int          `json:"count,omitempty"` // of quarantined streams, named or not
}

// quarantine is a stream that nothing is served from. What exactly stands in it
// is its organization's business, and this page has no authentication.
type quarantine struct {
	Stream   string          `json:"stream"`
	Revision domain.Revision `json:"revision"`
	Type     string          `json:"type"`
	Rule     string          `json:"rule"`
}

// maxNamed is how many streams in quarantine are named.
const maxNamed = 100

func historyState(broken []domain.HistoryError) checkState {
	state := checkState{OK: len(broken) == 0, Count: len(broken)}
	for _, b := range broken[:min(len(broken), maxNamed)] {
		state.Quarantined = append(state.Quarantined, quarantine{b.Stream, b.Revision, b.Type, b.Rule})
	}
	return state
}
