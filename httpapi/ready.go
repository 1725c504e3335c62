package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/lotline/lotline/domain"
)

// Check is the result of checking one part of the node. /readyz shows Name and Reason to
// everybody. Callers with a secret key see Err as well, and operators see Err and Detail.
type Check struct {
	Name string
	// Err is nil if the part works.
	Err error
	// Reason says in general words why the part does not work. It must not contain ids,
	// addresses, or error texts of other programs. "" means defaultReason.
	Reason string
	// Detail is more information about the part, to be encoded as JSON, or nil. It is about
	// all organizations together, so only operators may see it.
	Detail any
	// Advisory means that the node is ready in spite of Err.
	Advisory bool
}

// defaultReason is the reason for a part that gives none of its own.
const defaultReason = "it is not as it should be"

// readyTimeout is how long the checks of all parts may take.
const readyTimeout = 2 * time.Second

// live answers 200 as long as the process can answer at all.
func (s *server) live(x *exchange, r *http.Request) error {
	x.json(r, http.StatusOK, typeJSON, []byte(`{"status":"live"}`))
	return nil
}

// metrics answers with the node's metrics.
func (s *server) metrics(x *exchange, r *http.Request) error {
	s.Metrics.ServeHTTP(x, r)
	return nil
}

// viewer is the client that asks for /readyz. It decides how much the answer contains. The
// zero value gets only the parts that everybody may see.
type viewer struct {
	operator     bool
	organization domain.ID // the organization that owns the secret key, or ""
}

// ready answers whether the node should get requests, and the state of each part.
func (s *server) ready(x *exchange, r *http.Request) error {
	return s.answerReadiness(x, r, s.viewer(x, r))
}

// readyForOperators is ready for a listener that only operators can reach.
func (s *server) readyForOperators(x *exchange, r *http.Request) error {
	return s.answerReadiness(x, r, viewer{operator: true})
}

// viewer identifies the client that requests /readyz. A health check must not fail because
// of its key. So a caller whose key is invalid or over its limit gets the public part of the
// answer. A request with a key still counts against the rate limit, so that nobody can try
// more keys here than at other paths.
func (s *server) viewer(x *exchange, r *http.Request) viewer {
	if len(r.Header["Authorization"]) == 0 || s.CaughtUp == nil || !s.CaughtUp() {
		return viewer{} // before the node has caught up it does not know which keys are valid
	}
	err := s.authenticateSecretKey(x, r)
	if over := s.count(x, r); err != nil || over != nil {
		return viewer{}
	}
	return viewer{organization: x.organization.ID}
}

// answerReadiness answers with the state of each part, as far as the viewer may see it.
//
// A node with histories in quarantine is still ready. A load balancer asks for /readyz to
// decide which nodes get requests, and all nodes read the same log, so no other node could
// serve these streams either. If they counted, one broken stream of one organization would
// take every node out of service for all organizations.
func (s *server) answerReadiness(x *exchange, r *http.Request, to viewer) error {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	a := readiness{Status: "ready", Checks: map[string]checkState{}}
	status := http.StatusOK
	for _, c := range s.Ready(ctx) {
		a.Checks[c.Name] = c.visibleTo(to)
		if c.Err != nil && !c.Advisory {
			a.Status, status = "not ready", http.StatusServiceUnavailable
		}
	}
	a.Checks["histories"] = s.histories(to)
	x.json(r, status, typeJSON, encode(a))
	return nil
}

// visibleTo returns what a viewer may see of a check.
func (c Check) visibleTo(to viewer) checkState {
	state := checkState{OK: c.Err == nil}
	if c.Err != nil {
		state.Reason = cmp.Or(c.Reason, defaultReason)
	}
	if c.Err != nil && (to.operator || to.organization != "") {
		state.Error = c.Err.Error()
	}
	if to.operator {
		state.Detail = c.Detail
	}
	return state
}

// maxNamed is how many streams in quarantine an answer lists.
const maxNamed = 100

// histories returns the state of the streams' histories. Operators see every stream in
// quarantine, up to maxNamed. An organization sees the names of its own streams, and the
// number of all.
func (s *server) histories(to viewer) checkState {
	if s.Views == nil { // the node is starting
		return checkState{Reason: "nothing is known of them yet"}
	}
	broken := s.Views.Quarantined()
	if len(broken) == 0 {
		return checkState{OK: true}
	}
	state := checkState{Reason: "streams are in quarantine"}
	if to == (viewer{}) {
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

// owns reports whether a stream belongs to an organization.
func (s *server) owns(organization domain.ID, stream string) bool {
	id, err := domain.StreamID(stream)
	if err != nil {
		return false // a stream of the engine itself
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
	Count       int          `json:"count,omitempty"` // of all quarantined streams, listed or not
}

// quarantine describes a stream that the API does not serve because its history is broken.
type quarantine struct {
	Stream   string          `json:"stream"`
	Revision domain.Revision `json:"revision"`
	Type     string          `json:"type"`
	Rule     string          `json:"rule"`
}
