package domain

// Aggregate is the subject of one stream, folded from its events. *Queue, *Draw,
// *Auction, *Organization, *Claims and *SigningKeys implement it.
type Aggregate interface {
	// Decide says what cmd leads to at now: events, a refusal (*Error), or
	// nothing because it is so already. It changes nothing, and answers the
	// same whenever it is asked the same. What is asked for by Advance may be
	// many events: they come a few hundred at a time, each part determined
	// by what stands before it, so that an append can hold a part.
	Decide(now Instant, cmd Command) ([]Event, error)
	// Evolve applies an event, or refuses it with a *RuleError. It accepts
	// whatever a correct engine may have recorded, and only that. After a
	// refusal the aggregate is of no use.
	Evolve(e Event) error
	// Wake is when Advance has something to do next, or 0 for never.
	Wake() Instant
	// Fork returns a copy that evolves apart from the original.
	Fork() Aggregate
}

// NewAggregate is the subject of a stream of kind k before its first event.
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

// Claims is the subject of a claim: which distribution a repeatable creation
// makes. The first claim stands.
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

// Fork implements Aggregate.
func (c *Claims) Fork() Aggregate {
	f := *c
	return &f
}
