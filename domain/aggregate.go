package domain

// Aggregate is the state of the object that one stream is about, folded from its
// events. *Queue, *Draw, *Auction, *Organization, *Claims and *SigningKeys implement
// it.
type Aggregate interface {
	// Decide returns the events that cmd leads to at now, a refusal (*Error), or
	// neither when nothing would change. It does not change the aggregate, and the
	// same arguments give the same result. Advance may lead to many events. Then
	// Decide returns a few hundred at a time, so that an append can hold them, and
	// each part follows from the events before it.
	Decide(now Instant, cmd Command) ([]Event, error)
	// Evolve applies an event, or refuses it with a *RuleError. It accepts exactly the
	// events that a correct engine may have recorded. After a refusal the caller must
	// not use the aggregate any more.
	Evolve(e Event) error
	// Wake is when Advance has something to do next, or 0 for never.
	Wake() Instant
	// Time is the latest time in the stream, or 0 before the first event.
	Time() Instant
	// Fork returns a copy that evolves apart from the original.
	Fork() Aggregate
}

// NewAggregate returns the aggregate of a stream of kind k before its first event.
func NewAggregate(k Kind) Aggregate {
	switch k {
	case KindQueue, KindDraw, KindAuction:
		return NewDistribution(k)
	case KindOrganization:
		return &Organization{}
	case KindClaim:
		return &Claims{}
	case KindSigning:
		return &SigningKeys{}
	case KindSeal, KindSink, KindClock:
	}
	panic("not a kind with an aggregate: " + string(k))
}

// Claims is the state of a claim stream: which distribution a repeatable creation makes.
// The first claim counts.
type Claims struct{ Made ID }

// Decide implements Aggregate.
func (c *Claims) Decide(now Instant, cmd Command) ([]Event, error) {
	if _, ok := cmd.(Advance); ok {
		return nil, nil
	}
	claim, ok := cmd.(Claim)
	if !ok {
		return nil, Refuse(InvalidTransition, "a claim does not take %T", cmd)
	}
	if c.Made != "" {
		return nil, nil
	}
	return []Event{Claimed{Stamp{now}, claim.ID}}, nil
}

// Evolve implements Aggregate.
func (c *Claims) Evolve(e Event) error {
	claimed, ok := e.(Claimed)
	if !ok || c.Made != "" {
		return ruleError(ruleCreation, "%T in a claim", e)
	}
	c.Made = claimed.ID
	return nil
}

// Wake implements Aggregate.
func (c *Claims) Wake() Instant { return 0 }

// Time implements Aggregate. A claim stream has only one event, so no later event needs
// to be compared with its time.
func (c *Claims) Time() Instant { return 0 }

// Fork implements Aggregate.
func (c *Claims) Fork() Aggregate {
	f := *c
	return &f
}
