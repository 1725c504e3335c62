package domain

import (
	"fmt"
	"strings"
	"time"
)

// Code says what kind of refusal an Error is. Its text is the `error` of the
// HTTP contract, literally.
type Code string

// The refusals that the rules of this package give.
const (
	ValidationFailed      Code = "Validation failed"
	UpdateClosed          Code = "Cannot update closed distribution"
	UpdateOpen            Code = "Cannot update open distribution"
	DeleteActive          Code = "Cannot delete active distribution"
	InvalidTransition     Code = "Invalid status transition"
	NotPossible           Code = "Not possible in this state"
	PreconditionFailed    Code = "Precondition failed"
	IdempotencyReused     Code = "Idempotency key reused"
	ChangedByAnother      Code = "Distribution was changed by another request"
	DistributionNotFound  Code = "Distribution not found"
	OrganizationNotFound  Code = "Organization not found"
	KeyNotFound           Code = "Key not found"
	HistoryInconsistent   Code = "Distribution history is inconsistent"
	EventStoreUnavailable Code = "Event store unavailable"
)

// NotFound is the refusal for an unknown or deleted distribution of a kind.
func NotFound(k Kind) Code { return Code(k.Title() + " not found") }

// NotOpenYet is the refusal of a consumer who comes before the opening.
func NotOpenYet(k Kind) Code { return Code(k.Title() + " is not open yet") }

// TooLate is the refusal of a consumer who comes after the close.
func TooLate(k Kind) Code { return Code(k.Title() + " is closed") }

// Full is the refusal of a consumer for whom there is no room now.
func Full(k Kind) Code { return Code(k.Title() + " is full") }

// NotIn is the refusal for a consumer who never took part.
func NotIn(k Kind) Code { return Code("Consumer not in " + string(k)) }

// Identifier is the code in upper snake case: "QUEUE_NOT_FOUND".
func (c Code) Identifier() string {
	return strings.ToUpper(strings.ReplaceAll(string(c), " ", "_"))
}

// Detail names one field and what is wrong with it.
type Detail struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// MaxDetails is how many details a refusal of a request has at most.
const MaxDetails = 50

// Error is a refusal: the rules do not allow the command, and nothing happened. Every
// other error is a fault, which says nothing about the outcome.
type Error struct {
	Code    Code
	Message string   // says more than the code, or is empty
	Details []Detail // the fields that are wrong, in the order of the contract
	More    int      // how many more fields are wrong than Details names
	// RetryAfter is after how long the same command may be allowed, or 0. OpensAt is the
	// opening that the consumer has to wait for, or 0.
	RetryAfter time.Duration
	OpensAt    Instant
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Code))
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	for i, d := range e.Details {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep + d.Field + " " + d.Message)
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "; %d more are wrong", e.More)
	}
	return b.String()
}

// Refuse makes a refusal. The message is for the client.
func Refuse(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// RuleError names the invariant that an event would break. Evolve returns it, and
// History adds the place in the stream.
type RuleError struct {
	Rule   string // short and constant, so that it can be searched for
	Detail string
}

func (v *RuleError) Error() string { return v.Rule + ": " + v.Detail }

func ruleError(rule, format string, args ...any) error {
	return &RuleError{Rule: rule, Detail: fmt.Sprintf(format, args...)}
}
