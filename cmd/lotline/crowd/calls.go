// Package crowd judges the calls that clients recorded of a queue with many consumers. It
// compares every answer of the HTTP API with the queue's history, and checks that the
// history keeps the rules of a queue.
//
// It is for tests only. It must not send requests or start engines: tests do that, and
// pass it their records. It must not use the rules of package domain either, but only the
// plain model of package queuemodel.
package crowd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/queuemodel"
)

// Op is the operation that a call requests.
type Op string

// The operations.
const (
	Enter     Op = "enter"
	Leave     Op = "leave"
	Status    Op = "status"
	Admit     Op = "admit"
	AdmitNext Op = "admit-next"
	Complete  Op = "complete"
	Deny      Op = "deny"
	Validate  Op = "validate"
	Update    Op = "update"
)

// Reads reports whether the operation changes nothing.
func (o Op) Reads() bool { return o == Status || o == Validate }

// actions maps the operations that write to the actions of the model.
var actions = map[Op]queuemodel.Action{
	Enter: queuemodel.Enter, Leave: queuemodel.Leave, Admit: queuemodel.Admit, AdmitNext: queuemodel.AdmitNext,
	Complete: queuemodel.Complete, Deny: queuemodel.Deny, Update: queuemodel.Update,
}

// Call is a request and its answer.
type Call struct {
	ID       string         `json:"id"` // X-Request-Id
	Op       Op             `json:"op"`
	Node     int            `json:"node"` // the node that received the call
	Consumer string         `json:"consumer,omitempty"`
	Count    int64          `json:"count,omitempty"`   // only for AdmitNext
	Key      string         `json:"key,omitempty"`     // Idempotency-Key
	Checked  string         `json:"checked,omitempty"` // the token to validate
	CloseAt  domain.Instant `json:"closeAt,omitzero"`  // the new closeAt, if an Update changes it
	Named    string         `json:"named,omitempty"`   // ID of the call whose X-Position it sends

	Called   time.Time `json:"called"`
	Returned time.Time `json:"returned"`
	// Late is set for a read that took so long that the node gave up waiting for the
	// events that it had acknowledged.
	Late     bool       `json:"late,omitempty"`
	Status   int        `json:"status"` // 0 when the call got no answer
	Code     string     `json:"code,omitempty"`
	Replayed bool       `json:"replayed,omitempty"` // the answer has Idempotent-Replayed: true
	Position string     `json:"position,omitempty"` // X-Position
	Shown    []Standing `json:"shown,omitempty"`
	Valid    bool       `json:"valid,omitempty"`   // the answer to Validate: the token is valid
	Invalid  string     `json:"invalid,omitempty"` // the answer to Validate: why it is not
}

// Standing is a consumer's place in the queue, as an answer describes it.
type Standing struct {
	ConsumerID    string              `json:"consumerId"`
	Status        queuemodel.Standing `json:"status"`
	Position      *int64              `json:"position,omitzero"`
	EstimatedWait *int64              `json:"estimatedWaitTimeInSeconds,omitzero"`
	EnteredAt     domain.Instant      `json:"enteredAt,omitzero"`
	AdmittedAt    domain.Instant      `json:"admittedAt,omitzero"`
	ExpiresAt     domain.Instant      `json:"expiresAt,omitzero"`
	CompletedAt   domain.Instant      `json:"completedAt,omitzero"`
	DenyReason    string              `json:"denyReason,omitzero"`
	Ticket        string              `json:"ticket"`
	Token         string              `json:"admissionToken,omitzero"`
}

func (c *Call) String() string {
	var shown []string
	for _, s := range c.Shown {
		text, _ := json.Marshal(s)
		shown = append(shown, string(text))
	}
	return fmt.Sprintf("%s %s %s at node %d: %d %s %s, replayed %t, valid %t %s",
		c.ID, c.Op, c.Consumer, c.Node, c.Status, c.Code, strings.Join(shown, " "), c.Replayed, c.Valid, c.Invalid)
}

// ByTime compares calls by the time at which they were sent, for sorting.
func ByTime(a, b *Call) int { return cmp.Or(a.Called.Compare(b.Called), cmp.Compare(a.ID, b.ID)) }

// outcomeUnknown reports whether the answer leaves open if the request was carried out.
func (c *Call) outcomeUnknown() bool { return c.Status == 0 || c.Code == "OUTCOME_UNKNOWN" }

// saysNothing reports whether the answer says nothing about the queue.
func (c *Call) saysNothing() bool {
	switch c.Code {
	case domain.EventStoreUnavailable.Identifier(), domain.ChangedByAnother.Identifier(), "READ_MODEL_IS_BEHIND":
		return true
	}
	return c.outcomeUnknown()
}
