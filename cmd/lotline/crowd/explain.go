package crowd

import (
	"net/http"
	"slices"

	"github.com/lotline/lotline/cmd/lotline/claims"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/queuemodel"
)

// state is the queue after one event of its history.
type state struct {
	*queuemodel.Queue

	recordedAt domain.Instant
}

// earliest returns the index of the oldest state that the answer to a call may describe.
func (e *Evidence) earliest(c *Call) int {
	var from int
	if c.Op.Reads() {
		if !c.Late {
			from = e.known(c.Node, c.Called)
		}
		if made := e.caused[c.Named]; len(made) > 0 {
			from = max(from, made[len(made)-1])
		}
		return from
	}
	from = e.known(allNodes, c.Called)
	if made := e.caused[c.ID]; len(made) > 0 {
		from = max(from, made[len(made)-1])
	}
	// Before the engine decides a command it records the events that are due.
	called := domain.InstantOf(c.Called)
	for i := from + 1; i < len(e.Events); i++ {
		t := e.Events[i].Type
		if (t == queuemodel.ConsumerExpired || t == queuemodel.QueueClosed) && e.Events[i].Data.At <= called {
			from = i
		}
	}
	return from
}

// explain checks that an answer is right for some state of the queue between the call and
// its return. It then checks the tickets and tokens in the answer.
func (e *Evidence) explain(c *Call, v *claims.Verdicts) {
	from := e.earliest(c)
	returned := domain.InstantOf(c.Returned)
	var by []int
	for i := from; i < len(e.states) && (i == from || e.states[i].recordedAt <= returned); i++ {
		if e.explains(e.states[i], c) && e.sameAdmitted(c) {
			by = append(by, i)
		}
	}
	v.Of(Explained).Hold(len(by) > 0, "%s, from revision %d on", c, from)
	if len(by) == 0 {
		return
	}
	for i := range c.Shown {
		a := &c.Shown[i]
		entries := map[int64]queuemodel.Entry{}
		for _, at := range by {
			entry, _ := e.states[at].Newest(a.ConsumerID)
			entries[entry.Number] = entry
		}
		if len(entries) > 1 {
			continue // the consumer entered twice within a millisecond
		}
		for _, entry := range entries {
			e.checkGrant(entry, a, c, v)
		}
	}
	if c.Valid {
		ends := claimsOf(c.Checked).end()
		v.Of(Token).Hold(ends > domain.InstantOf(c.Called), "a token that ended at %s counts: %s", ends, c)
	}
}

// checkGrant checks that the ticket and the token in an answer belong to the entry.
func (e *Evidence) checkGrant(entry queuemodel.Entry, a *Standing, c *Call, v *claims.Verdicts) {
	if was, known := e.tickets[entry.Number]; known {
		v.Of(Ticket).Hold(was == a.Ticket, "entry %d has %s and %s: %s", entry.Number, was, a.Ticket, c)
	}
	if was, known := e.owners[a.Ticket]; known {
		v.Of(Ticket).Hold(was == entry.Number, "entries %d and %d have %s: %s", was, entry.Number, a.Ticket, c)
	}
	e.tickets[entry.Number], e.owners[a.Ticket] = a.Ticket, entry.Number
	if a.Token == "" {
		return
	}
	t := claimsOf(a.Token)
	ends := domain.Instant(entry.ExpiresAt)
	v.Of(Token).Hold(t.ID == e.admissions[entry.Number] && t.Subject == a.ConsumerID && (t.end() <= ends || ends == 0),
		"%+v for %s, whose session %s ends at %s: %s", t, a.ConsumerID, e.admissions[entry.Number], ends, c)
}

// sameAdmitted reports whether an answer to AdmitNext lists the consumers that the call
// admitted according to the history.
func (e *Evidence) sameAdmitted(c *Call) bool {
	if c.Op != AdmitNext || c.Replayed || c.Status >= 300 {
		return true
	}
	return slices.EqualFunc(e.caused[c.ID], c.Shown, func(i int, a Standing) bool {
		return e.Events[i].Data.ConsumerID == a.ConsumerID
	})
}

// explains reports whether an answer is right in a state. The state must include the
// events that the call caused.
func (e *Evidence) explains(s state, c *Call) bool {
	for i := range c.Shown {
		if !s.shows(&c.Shown[i]) || c.Op != AdmitNext && c.Shown[i].ConsumerID != c.Consumer {
			return false
		}
	}
	ok := c.Status == http.StatusOK
	switch {
	case c.Op == Validate:
		return e.explainsVerdict(s, c)
	case ok && c.Op != Update && c.Op != AdmitNext && len(c.Shown) != 1:
		return false
	case len(e.caused[c.ID]) > 0 || c.Replayed:
		return ok
	case c.Op == Status && s.Standing(c.Consumer) != queuemodel.None:
		return ok
	case c.Op == Status:
		return c.refused(queuemodel.RefusedNotEntered)
	case c.Op == Update && c.CloseAt != 0 && c.CloseAt <= domain.InstantOf(c.Returned) && c.Status == http.StatusBadRequest:
		return true // the new time to close had passed
	}
	// The call caused no event, so the model must not decide any for it.
	events, refusal := s.Decide(s.Latest, queuemodel.Request{Action: actions[c.Op], Consumer: c.Consumer, Count: c.Count})
	if refusal != "" {
		return c.refused(refusal)
	}
	return ok && len(events) == 0
}

// refusals maps each refusal to the status of its answer.
var refusals = map[queuemodel.Refusal]int{
	queuemodel.RefusedClosed:       http.StatusBadRequest,
	queuemodel.RefusedFull:         http.StatusTooManyRequests,
	queuemodel.RefusedNotEntered:   http.StatusNotFound,
	queuemodel.RefusedNotPossible:  http.StatusConflict,
	queuemodel.RefusedUpdateClosed: http.StatusConflict,
}

// refused reports whether the answer is this refusal.
func (c *Call) refused(why queuemodel.Refusal) bool {
	return c.Status == refusals[why] && c.Code == domain.Code(why).Identifier()
}

// shows reports whether an answer gives a consumer's place as it is in the state.
func (s state) shows(a *Standing) bool {
	number := func(n *int64) int64 {
		if n == nil {
			return queuemodel.Unknown
		}
		return *n
	}
	want, ok := s.Place(a.ConsumerID)
	got := queuemodel.Place{
		Standing: a.Status, Position: number(a.Position), EstimatedWait: number(a.EstimatedWait), Reason: a.DenyReason,
		EnteredAt: queuemodel.Time(a.EnteredAt), AdmittedAt: queuemodel.Time(a.AdmittedAt),
		ExpiresAt: queuemodel.Time(a.ExpiresAt), CompletedAt: queuemodel.Time(a.CompletedAt),
	}
	return ok && got == want && (a.Token != "") == (want.Standing == queuemodel.Admitted)
}

// explainsVerdict reports whether the verdict on a token is right in a state.
func (e *Evidence) explainsVerdict(s state, c *Call) bool {
	t := claimsOf(c.Checked)
	entry, _ := s.Newest(c.Consumer)
	live := s.Standing(c.Consumer) == queuemodel.Admitted && e.admissions[entry.Number] == t.ID
	switch {
	case c.Status != http.StatusOK:
		return false
	case c.Valid:
		return live && t.Subject == c.Consumer
	}
	switch c.Invalid {
	case "The token has expired":
		return t.end() <= domain.InstantOf(c.Returned)
	case "The token is another consumer's":
		return t.Subject != c.Consumer
	case "The consumer is not admitted any more":
		return !live
	}
	return false
}
