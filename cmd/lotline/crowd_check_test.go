package main

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lotline/lotline/domain"
)

// What is claimed of a queue with people in it, beside what the load generator
// checks: claimWhole, claimOnce, claimTurn, claimLife, claimRate and claimAsked.
const (
	claimCapacity  = "those who wait are fewer than the capacity in force when one more enters"
	claimPace      = "any time holds no more automatic admissions than the rates in force earn in it, and one second's worth"
	claimSession   = "a session ends when it is due, and nothing is recorded after its end before that"
	claimExplained = "an answer is explained by the queue as it was between call and return"
	claimRefusal   = "what was read or refused changed nothing"
	claimRepeat    = "a repeated request is carried out once"
	claimToken     = "an admission token is its session's and never outlives it"
	claimTicket    = "an entry has one ticket, and no other has it"
)

// crowdEvent is all that is looked at in an event: what the load generator knows of
// it, and more.
type crowdEvent struct {
	benchEvent `json:"-"`
	ID         string         `json:"id"`
	RecordedAt domain.Instant `json:"recordedAt"`
	More       crowdData      `json:"data"`
	Cause      struct {
		RequestID string `json:"requestId"`
	} `json:"metadata"`
}

// crowdData is what the load generator does not look at in an event's data.
type crowdData struct {
	From                   domain.Standing   `json:"from"`
	Reason                 domain.DenyReason `json:"reason"`
	ExpiresAt              domain.Instant    `json:"expiresAt"`
	CloseAt                domain.Instant    `json:"closeAt"`
	MaxCapacity            int64             `json:"maxCapacity"`
	AdmissionRate          int64             `json:"admissionRate"`
	SessionDurationSeconds int64             `json:"sessionDurationSeconds"`
	Changed                map[string]struct {
		New json.RawMessage `json:"new"`
	} `json:"changed"`
}

func (e *crowdEvent) UnmarshalJSON(line []byte) error {
	type plain crowdEvent
	if err := json.Unmarshal(line, (*plain)(e)); err != nil {
		return err
	}
	return json.Unmarshal(line, &e.benchEvent)
}

// due reports whether the event comes by the clock. It may then be recorded with
// whatever is asked for next.
func (e *crowdEvent) due() bool {
	switch e.Type {
	case "queue.scheduled", "queue.opened", "queue.closed", "queue.completed", "queue.consumer.expired":
		return true
	}
	return e.Type == "queue.consumer.admitted" && !e.Data.ByHand
}

// crowdEntry is an entry at some time. It is not changed any more.
type crowdEntry struct {
	number                           int64
	status                           domain.Standing
	enteredAt, admittedAt, expiresAt domain.Instant
	completedAt                      domain.Instant
	reason                           domain.DenyReason
	admission                        string // the event's id
}

// crowdState is the queue behind one event.
type crowdState struct {
	recordedAt     domain.Instant
	status         domain.Status
	capacity, rate int64
	session        int64 // seconds
	closeAt        domain.Instant
	line           []int64 // the numbers of who waits, in order
	latest         map[string]*crowdEntry
}

// entryOf is a consumer's latest entry and where it stands.
func (s *crowdState) entryOf(consumer string) (*crowdEntry, domain.Standing) {
	e := s.latest[consumer]
	switch {
	case e == nil:
		return nil, domain.StandingNone
	case e.status == domain.StandingQueued && s.status == domain.StatusCompleted:
		return e, domain.StandingDenied
	}
	return e, e.status
}

// crowdStanding is a participation as it is answered.
type crowdStanding struct {
	ConsumerID    string            `json:"consumerId"`
	Status        domain.Standing   `json:"status"`
	Position      *int64            `json:"position"`
	EstimatedWait *int64            `json:"estimatedWaitTimeInSeconds"`
	EnteredAt     domain.Instant    `json:"enteredAt"`
	AdmittedAt    domain.Instant    `json:"admittedAt"`
	ExpiresAt     domain.Instant    `json:"expiresAt"`
	CompletedAt   domain.Instant    `json:"completedAt"`
	DenyReason    domain.DenyReason `json:"denyReason"`
	Ticket        string            `json:"ticket"`
	Token         string            `json:"admissionToken"`
}

// shows reports whether an answer is what the state says of the consumer.
func (s *crowdState) shows(a *crowdStanding) bool {
	e, is := s.entryOf(a.ConsumerID)
	if e == nil {
		return false
	}
	position, estimate, reason := int64(-1), int64(-1), e.reason
	switch {
	case is == domain.StandingQueued:
		position = int64(slices.Index(s.line, e.number)) + 1
		if s.rate > 0 && s.status == domain.StatusOpen {
			estimate = (position*60 + s.rate - 1) / s.rate
		}
	case is == domain.StandingAdmitted:
		position = 0
		if s.rate > 0 {
			estimate = 0
		}
	case is == domain.StandingDenied && reason == "":
		reason = domain.DenyQueueClosed
	}
	number := func(n *int64) int64 {
		if n == nil {
			return -1
		}
		return *n
	}
	return a.Status == is && number(a.Position) == position && number(a.EstimatedWait) == estimate && a.DenyReason == reason &&
		a.EnteredAt == e.enteredAt && a.AdmittedAt == e.admittedAt && a.ExpiresAt == e.expiresAt && a.CompletedAt == e.completedAt &&
		(a.Token != "") == (is == domain.StandingAdmitted)
}

// crowdOp is what is asked for.
type crowdOp string

const (
	crowdEnter      crowdOp = "enter"
	crowdLeave      crowdOp = "leave"
	crowdStatus     crowdOp = "status"
	crowdAdmit      crowdOp = "admit"
	crowdAdmitCount crowdOp = "admit-next"
	crowdComplete   crowdOp = "complete"
	crowdDeny       crowdOp = "deny"
	crowdValidate   crowdOp = "validate"
	crowdUpdate     crowdOp = "update"
)

func (o crowdOp) reads() bool { return o == crowdStatus || o == crowdValidate }

// crowdCall is a request and what came back.
type crowdCall struct {
	id       string // X-Request-Id
	op       crowdOp
	node     int
	consumer string
	key      string // Idempotency-Key
	token    string // to validate
	closeAt  domain.Instant
	named    *crowdCall // whose X-Position it brought

	called, returned time.Time
	status           int // 0: it was not answered
	code             string
	replayed         bool
	position         string
	shown            []crowdStanding
	valid            bool
	invalid          string // why it is not
}

func (c *crowdCall) String() string {
	return fmt.Sprintf("%s %s %s at node %d: %d %s %s, replayed %t, valid %t %s", c.id, c.op, c.consumer, c.node, c.status, c.code, c.standings(), c.replayed, c.valid, c.invalid)
}

func (c *crowdCall) standings() string {
	var all []string
	for _, s := range c.shown {
		text, _ := json.Marshal(s)
		all = append(all, string(text))
	}
	return strings.Join(all, " ")
}

// outcomeUnknown reports whether the call may have been carried out or not.
func (c *crowdCall) outcomeUnknown() bool { return c.status == 0 || c.code == "OUTCOME_UNKNOWN" }

// passedOver reports whether the answer says nothing of the queue.
func (c *crowdCall) passedOver() bool {
	switch c.code {
	case domain.EventStoreUnavailable.Identifier(), domain.ChangedByAnother.Identifier(), "READ_MODEL_IS_BEHIND":
		return true
	}
	return c.outcomeUnknown()
}

// asked reports whether an event is what the call asked for.
func (c *crowdCall) asked(e *crowdEvent) bool {
	of := c.consumer == e.Data.ConsumerID
	switch e.Type {
	case "queue.consumer.entered":
		return of && c.op == crowdEnter
	case "queue.consumer.left":
		return of && c.op == crowdLeave
	case "queue.consumer.admitted":
		return e.Data.ByHand && (of && c.op == crowdAdmit || c.op == crowdAdmitCount)
	case "queue.consumer.completed":
		return of && c.op == crowdComplete
	case "queue.consumer.denied":
		return of && c.op == crowdDeny
	case "queue.updated":
		return c.op == crowdUpdate
	}
	return false
}

// crowdEvidence is what clients recorded and what the queue's history says.
type crowdEvidence struct {
	calls  []*crowdCall
	events []*crowdEvent

	states []*crowdState      // behind each event
	caused map[string][]int   // by request, the events that it asked for
	acks   map[int][]crowdAck // by node; those of all under -1
	entry  map[int64]string   // the ticket of each entry
	ticket map[string]int64   // the entry of each ticket
}

// crowdAck is when it was known from outside that the history has an event.
type crowdAck struct {
	at       time.Time
	revision int
}

const allNodes = -1

// judge looks at everything there is.
func (c *crowdEvidence) judge() *benchVerdicts {
	v := &benchVerdicts{}
	c.states, c.caused, c.acks = nil, map[string][]int{}, map[int][]crowdAck{}
	c.entry, c.ticket = map[int64]string{}, map[string]int64{}
	c.carryOut(v)
	c.checkPace(v)
	c.attribute(v)
	for _, call := range c.calls {
		if !call.passedOver() {
			c.explain(call, v)
		}
	}
	return v
}

// carryOut makes the states, and looks at what the history says by itself.
func (c *crowdEvidence) carryOut(v *benchVerdicts) {
	line := &benchLine{latest: map[string]int{}}
	s := &crowdState{latest: map[string]*crowdEntry{}}
	for _, e := range c.events {
		line.carryOut(&e.benchEvent, v)
		s = s.behind(e, v)
		c.states = append(c.states, s)
	}
}

// behind is the state that follows with an event.
func (s *crowdState) behind(e *crowdEvent, v *benchVerdicts) *crowdState {
	next := *s
	next.recordedAt = e.RecordedAt
	next.latest = maps.Clone(s.latest)
	for consumer, one := range s.latest {
		if one.status == domain.StandingAdmitted && one.expiresAt != 0 && e.Type != "queue.consumer.expired" {
			v.of(claimSession).hold(e.Data.At < one.expiresAt, "%s at %s, and the session of %s ended at %s", e.Type, e.Data.At, consumer, one.expiresAt)
		}
	}
	was := s.latest[e.Data.ConsumerID]
	if was == nil {
		was = &crowdEntry{}
	}
	now := *was
	goes := func(to domain.Standing) {
		next.line = slices.DeleteFunc(slices.Clone(s.line), func(n int64) bool { return n == now.number })
		now.status = to
	}
	switch e.Type {
	case "queue.created":
		next.capacity, next.rate, next.session, next.closeAt = e.More.MaxCapacity, e.More.AdmissionRate, e.More.SessionDurationSeconds, e.More.CloseAt
		return &next
	case "queue.opened":
		next.status = domain.StatusOpen
		return &next
	case "queue.closed":
		next.status = domain.StatusClosed
		v.of(claimAsked).hold(s.closeAt != 0 && e.Data.At >= s.closeAt, "closed at %s, due %s", e.Data.At, s.closeAt)
		return &next
	case "queue.completed":
		next.status = domain.StatusCompleted
		return &next
	case "queue.updated":
		for name, to := range map[string]any{
			"maxCapacity": &next.capacity, "admissionRate": &next.rate, "sessionDurationSeconds": &next.session, "closeAt": &next.closeAt,
		} {
			if change, ok := e.More.Changed[name]; !ok {
				continue
			} else if string(change.New) == "null" {
				*to.(*int64) = 0
			} else if err := json.Unmarshal(change.New, to); err != nil {
				panic(err)
			}
		}
		return &next
	case "queue.consumer.entered":
		v.of(claimCapacity).hold(s.status == domain.StatusOpen && (s.capacity == 0 || int64(len(s.line)) < s.capacity),
			"%s entered with %d waiting, of %d, the queue being %s", e.Data.ConsumerID, len(s.line), s.capacity, s.status)
		now = crowdEntry{number: e.Data.Entry, status: domain.StandingQueued, enteredAt: e.Data.At}
		next.line = append(slices.Clone(s.line), now.number)
	case "queue.consumer.admitted":
		goes(domain.StandingAdmitted)
		now.admittedAt, now.expiresAt, now.admission = e.Data.At, e.More.ExpiresAt, e.ID
		want := domain.Instant(0)
		if s.session != 0 {
			want = e.Data.At.Add(time.Duration(s.session) * time.Second)
		}
		v.of(claimSession).hold(now.expiresAt == want, "%s is admitted until %s, not %s", e.Data.ConsumerID, now.expiresAt, want)
	case "queue.consumer.expired":
		goes(domain.StandingExpired)
		v.of(claimSession).hold(was.expiresAt != 0 && e.Data.At >= was.expiresAt, "%s expired at %s, due %s", e.Data.ConsumerID, e.Data.At, was.expiresAt)
	case "queue.consumer.completed":
		goes(domain.StandingCompleted)
		now.completedAt = e.Data.At
	case "queue.consumer.left":
		goes(domain.StandingLeft)
	case "queue.consumer.denied":
		goes(domain.StandingDenied)
		now.reason = e.More.Reason
	}
	next.latest[e.Data.ConsumerID] = &now
	return &next
}

// checkPace holds automatic admissions to the rates that were in force. That any 60
// seconds hold no more than the contract says follows from what is checked of any
// time; it is looked at by itself as well.
func (c *crowdEvidence) checkPace(v *benchVerdicts) {
	type admission struct {
		at     domain.Instant
		earned float64 // of admissions, since the beginning
		rate   int64   // the highest since the one before, up to this
	}
	var all []admission
	var at domain.Instant
	var earned float64
	var rate, highest int64
	for i, e := range c.events {
		earned += float64(rate) * float64(e.Data.At-at) / 60_000
		at, rate = e.Data.At, c.states[i].rate
		highest = max(highest, rate)
		if e.Type != "queue.consumer.admitted" || e.Data.ByHand {
			continue
		}
		before := c.states[i-1]
		v.of(claimPace).hold(rate > 0 && before.status == domain.StatusOpen && (before.closeAt == 0 || at < before.closeAt),
			"an automatic admission at %s with the rate %d, the queue being %s until %s", at, rate, before.status, before.closeAt)
		all = append(all, admission{at, earned, highest})
		highest = rate
	}
	for first := range all {
		rate := all[first].rate
		for last := first; last < len(all); last++ {
			if last > first {
				rate = max(rate, all[last].rate)
			}
			n, saved := float64(last-first+1), max(1, float64(rate)/60)
			// Half a thousandth is for adding up fractions.
			may := all[last].earned - all[first].earned + saved + 0.0005
			v.of(claimPace).hold(n <= may, "%g from %s to %s, where %.3f may be", n, all[first].at, all[last].at, may)
			if all[last].at-all[first].at < 60_000 {
				v.of(claimRate).hold(n <= math.Ceil(float64(rate)*61/60), "%g within a minute from %s on, at a rate of %d", n, all[first].at, rate)
			}
		}
	}
}

// attribute finds out who asked for what is in the history.
func (c *crowdEvidence) attribute(v *benchVerdicts) {
	calls := map[string]*crowdCall{}
	for _, call := range c.calls {
		calls[call.id] = call
	}
	for i, e := range c.events {
		call := calls[e.Cause.RequestID]
		if e.Type == "queue.created" || e.due() && (call == nil || !call.op.reads()) {
			continue
		}
		v.of(claimAsked).hold(call != nil && call.asked(e), "%s for %s at revision %d, by %v", e.Type, e.Data.ConsumerID, i, call)
		if call != nil {
			c.caused[call.id] = append(c.caused[call.id], i)
		}
	}
	carriedOut := map[string]*crowdCall{}
	for _, call := range c.calls {
		made := c.caused[call.id]
		if !call.outcomeUnknown() && (call.op.reads() || call.status >= http.StatusBadRequest || call.replayed) {
			v.of(claimRefusal).hold(len(made) == 0, "%s, and it caused %v", call, made)
		}
		if len(made) == 0 {
			continue
		}
		v.of(claimOnce).hold(len(made) == 1 || call.op == crowdAdmitCount, "%s, and it caused %v", call, made)
		if call.key != "" {
			other := carriedOut[call.key]
			v.of(claimRepeat).hold(other == nil, "%s, and before it %v", call, other)
			carriedOut[call.key] = call
		}
		if call.status != 0 && call.status < 300 {
			ack := crowdAck{call.returned, made[len(made)-1]}
			c.acks[call.node] = append(c.acks[call.node], ack)
			c.acks[allNodes] = append(c.acks[allNodes], ack)
		}
	}
	for _, call := range c.calls {
		if call.replayed {
			v.of(claimRepeat).hold(carriedOut[call.key] != nil, "nothing was carried out that this repeats: %s", call)
		}
	}
	for _, acks := range c.acks {
		slices.SortFunc(acks, func(a, b crowdAck) int { return a.at.Compare(b.at) })
		for i := 1; i < len(acks); i++ {
			acks[i].revision = max(acks[i].revision, acks[i-1].revision)
		}
	}
}

// known is the latest event that a node, or all of them, had acknowledged to anybody
// before a time.
func (c *crowdEvidence) known(node int, before time.Time) int {
	acks := c.acks[node]
	i, _ := slices.BinarySearchFunc(acks, before, func(a crowdAck, t time.Time) int { return a.at.Compare(t) })
	if i == 0 {
		return 0
	}
	return acks[i-1].revision
}

// earliest is the first state that an answer may be explained by.
func (c *crowdEvidence) earliest(call *crowdCall) int {
	var from int
	if call.op.reads() {
		if call.returned.Sub(call.called) < ownWait {
			from = c.known(call.node, call.called)
		}
		if call.named != nil {
			if made := c.caused[call.named.id]; len(made) > 0 {
				from = max(from, made[len(made)-1])
			}
		}
		return from
	}
	from = c.known(allNodes, call.called)
	if made := c.caused[call.id]; len(made) > 0 {
		from = max(from, made[len(made)-1])
	}
	// What is due comes before whatever is asked for.
	called := domain.InstantOf(call.called)
	for i := from + 1; i < len(c.events); i++ {
		if e := c.events[i]; (e.Type == "queue.consumer.expired" || e.Type == "queue.closed") && e.Data.At <= called {
			from = i
		}
	}
	return from
}

// explain looks for a state that explains an answer.
func (c *crowdEvidence) explain(call *crowdCall, v *benchVerdicts) {
	from := c.earliest(call)
	returned := domain.InstantOf(call.returned)
	var by []int
	for i := from; i < len(c.states) && (i == from || c.states[i].recordedAt <= returned); i++ {
		if c.states[i].explains(call, c.caused[call.id]) && c.sameAdmitted(call) {
			by = append(by, i)
		}
	}
	v.of(claimExplained).hold(len(by) > 0, "%s, from revision %d on", call, from)
	if len(by) == 0 {
		return
	}
	for i := range call.shown {
		a := &call.shown[i]
		numbers := map[int64]*crowdEntry{}
		for _, at := range by {
			e, _ := c.states[at].entryOf(a.ConsumerID)
			numbers[e.number] = e
		}
		if len(numbers) > 1 {
			continue // it entered twice within a millisecond
		}
		for number, e := range numbers {
			c.checkGrant(number, e, a, call, v)
		}
	}
	if call.valid {
		ends := claimsOf(call.token).end()
		v.of(claimToken).hold(ends > domain.InstantOf(call.called), "a token that ended at %s counts: %s", ends, call)
	}
}

// checkGrant looks at the ticket and the token of an entry.
func (c *crowdEvidence) checkGrant(number int64, e *crowdEntry, a *crowdStanding, call *crowdCall, v *benchVerdicts) {
	if was, known := c.entry[number]; known {
		v.of(claimTicket).hold(was == a.Ticket, "entry %d has %s and %s: %s", number, was, a.Ticket, call)
	}
	if was, known := c.ticket[a.Ticket]; known {
		v.of(claimTicket).hold(was == number, "entries %d and %d have %s: %s", was, number, a.Ticket, call)
	}
	c.entry[number], c.ticket[a.Ticket] = a.Ticket, number
	if a.Token == "" {
		return
	}
	claims := claimsOf(a.Token)
	ends := claims.end()
	v.of(claimToken).hold(claims.ID == e.admission && claims.Subject == a.ConsumerID && (ends <= e.expiresAt || e.expiresAt == 0),
		"%+v for %s, whose session %s ends at %s: %s", claims, a.ConsumerID, e.admission, e.expiresAt, call)
}

// tokenClaims is what an admission token says; nobody here asks who signed it.
type tokenClaims struct {
	ID      string `json:"jti"`
	Subject string `json:"sub"`
	Expires int64  `json:"exp"`
}

func (t tokenClaims) end() domain.Instant { return domain.Instant(t.Expires * 1000) }

func claimsOf(token string) (claims tokenClaims) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return tokenClaims{}
	}
	return claims
}

// sameAdmitted reports whether those who are shown to have been admitted are those of
// the history.
func (c *crowdEvidence) sameAdmitted(call *crowdCall) bool {
	if call.op != crowdAdmitCount || call.replayed || call.status >= 300 {
		return true
	}
	return slices.EqualFunc(c.caused[call.id], call.shown, func(i int, a crowdStanding) bool {
		return c.events[i].Data.ConsumerID == a.ConsumerID
	})
}

// explains reports whether an answer is the right one in a state. made are the events
// that the call caused; they are in the state.
func (s *crowdState) explains(call *crowdCall, made []int) bool {
	ok := call.status == http.StatusOK
	for i := range call.shown {
		if !s.shows(&call.shown[i]) || call.op != crowdAdmitCount && call.shown[i].ConsumerID != call.consumer {
			return false
		}
	}
	if call.op == crowdValidate {
		return s.explainsVerdict(call)
	}
	if ok && call.op != crowdUpdate && call.op != crowdAdmitCount && len(call.shown) != 1 {
		return false
	}
	if len(made) > 0 || call.replayed {
		return ok
	}
	e, is := s.entryOf(call.consumer)
	refused := func(status int, code domain.Code) bool {
		return call.status == status && call.code == code.Identifier()
	}
	unknown := e == nil && refused(http.StatusNotFound, domain.NotIn(domain.KindQueue))
	stays := func(as domain.Standing, from ...domain.Standing) bool {
		switch {
		case e == nil || slices.Contains(from, is):
			return unknown
		case is == as:
			return ok
		}
		return refused(http.StatusConflict, domain.NotPossible)
	}
	switch call.op {
	case crowdEnter:
		switch {
		case is != domain.StandingNone && is != domain.StandingLeft && is != domain.StandingExpired:
			return ok
		case s.status != domain.StatusOpen:
			return refused(http.StatusBadRequest, domain.TooLate(domain.KindQueue))
		}
		return s.capacity != 0 && int64(len(s.line)) >= s.capacity && refused(http.StatusTooManyRequests, domain.Full(domain.KindQueue))
	case crowdLeave:
		return stays(domain.StandingLeft, domain.StandingQueued, domain.StandingAdmitted)
	case crowdStatus:
		return unknown || e != nil && ok
	case crowdAdmit:
		return stays(domain.StandingAdmitted, domain.StandingQueued)
	case crowdComplete:
		return stays(domain.StandingCompleted, domain.StandingAdmitted)
	case crowdDeny:
		return stays(domain.StandingDenied, domain.StandingQueued, domain.StandingAdmitted)
	case crowdAdmitCount:
		if s.status == domain.StatusCompleted {
			return refused(http.StatusConflict, domain.NotPossible)
		}
		return ok && len(s.line) == 0
	case crowdUpdate:
		late := call.closeAt != 0 && call.closeAt <= domain.InstantOf(call.returned) && call.status == http.StatusBadRequest
		over := s.status != domain.StatusOpen
		return late || over && refused(http.StatusConflict, domain.UpdateClosed) || !over && ok
	case crowdValidate:
	}
	return false
}

// explainsVerdict is explains for what is said of a token.
func (s *crowdState) explainsVerdict(call *crowdCall) bool {
	claims := claimsOf(call.token)
	e, is := s.entryOf(call.consumer)
	live := is == domain.StandingAdmitted && e.admission == claims.ID
	switch {
	case call.status != http.StatusOK:
		return false
	case call.valid:
		return live && claims.Subject == call.consumer
	}
	switch call.invalid {
	case "The token has expired":
		return claims.end() <= domain.InstantOf(call.returned)
	case "The token is another consumer's":
		return claims.Subject != call.consumer
	case "The consumer is not admitted any more":
		return !live
	}
	return false
}

// byCall sorts what several clients recorded.
func byCall(a, b *crowdCall) int { return cmp.Or(a.called.Compare(b.called), cmp.Compare(a.id, b.id)) }
