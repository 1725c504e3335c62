package domain

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// DrawSettings are a draw's own fields.
type DrawSettings struct {
	DrawAt             Instant `json:"drawAt"`
	WinnerCount        Count   `json:"winnerCount"`
	MaxEntries         Count   `json:"maxEntries"`         // null: no bound
	ClaimWindowSeconds Count   `json:"claimWindowSeconds"` // null: winners never expire
	Backfill           bool    `json:"backfill"`
	EntropySource      *string `json:"entropySource"` // null: the draw needs the operator's secret only
}

// Draw gives access by random selection. Its zero value is a draw that has not
// been created. Not safe for concurrent use.
type Draw struct {
	Lifecycle
	noParticipants
	DrawSettings
	SeedCommitment string  `json:"seedCommitment"`
	Secret         Secret  `json:"secret"`
	EntriesRoot    *string `json:"entriesRoot"`
	EntryCount     int64   `json:"entryCount"`
	Entropy        *string `json:"entropy"`
}

// Kind is KindDraw.
func (d *Draw) Kind() Kind { return KindDraw }

func (d *Draw) fields() []field {
	return d.allFields(
		field{"drawAt", instant{&d.DrawAt, &d.TimeZone}, required | timing},
		field{"winnerCount", count(&d.WinnerCount), required | untilEntered},
		field{"maxEntries", count(&d.MaxEntries), nullable},
		field{"claimWindowSeconds", seconds(&d.ClaimWindowSeconds), nullable},
		field{"backfill", flag{&d.Backfill}, 0},
		field{"entropySource", text{&d.EntropySource, 1, 256}, nullable | untilOpen},
		field{"seedCommitment", readOnly(func(dst []byte) []byte { return appendString(dst, d.SeedCommitment) }), computed},
		field{"entriesRoot", readOnly(text{&d.EntriesRoot, 0, 0}.appendJSON), computed},
		field{"entryCount", readOnly(func(dst []byte) []byte { return strconv.AppendInt(dst, d.EntryCount, 10) }), computed},
	)
}

func (d *Draw) preset(Defaults) { d.Backfill = true }

func (d *Draw) check(wrong *clashes) { d.checkOrder(wrong, "drawAt", d.DrawAt) }

func (d *Draw) created(s Stamp, c Create) Event {
	commitment := sha256.Sum256(c.Secret[:])
	return &DrawCreated{
		Stamp: s, Identity: d.Identity, Common: d.Common, DrawSettings: d.DrawSettings,
		SeedCommitment: hex.EncodeToString(commitment[:]),
		Secret:         Secret{Plain: hex.EncodeToString(c.Secret[:])},
	}
}

// publicStatus implements Distribution. A COMPLETED draw has the public status DRAWN.
func (d *Draw) publicStatus() Status {
	if d.Status == StatusCompleted {
		return StatusDrawn
	}
	return d.Lifecycle.publicStatus()
}

// AppendJSON appends the draw as an admin sees it.
func (d *Draw) AppendJSON(dst []byte) []byte { return appendFields(dst, d.fields()) }

// AppendPublicJSON appends the draw as everybody may see it.
func (d *Draw) AppendPublicJSON(dst []byte) []byte {
	return appendFields(dst, d.publicFields(d,
		field{"drawAt", instant{&d.DrawAt, &d.TimeZone}, 0},
		field{"capacity", count(&d.MaxEntries), 0},
		field{"winnerCount", count(&d.WinnerCount), 0},
		field{"entrantCount", readOnly(func(dst []byte) []byte { return strconv.AppendInt(dst, d.EntryCount, 10) }), computed},
	))
}

// Secrets names the draw's secrets.
func (d *Draw) Secrets() []SecretField {
	return append(d.secrets(), SecretField{"secret", &d.Secret})
}

// Fork returns a copy that can evolve without changing d.
func (d *Draw) Fork() Aggregate {
	c := *d
	return &c
}

// Decide implements Aggregate.
func (d *Draw) Decide(now Instant, cmd Command) ([]Event, error) {
	if d.Status != "" && !d.Deleted {
		switch c := cmd.(type) {
		case Advance:
			return d.due(now)
		case SupplyEntropy:
			return d.supply(now, c)
		case Step:
			if c.To == StatusDrawn && d.Status == StatusClosed && d.awaitsEntropy() {
				return nil, Refuse(InvalidTransition, "the draw waits for the entropy of its source")
			}
		}
	}
	return d.decide(now, cmd, d)
}

// supply records the value of the entropy source. A draw takes one value, while it is
// CLOSED. The same value again changes nothing.
func (d *Draw) supply(now Instant, c SupplyEntropy) ([]Event, error) {
	var value string
	var wrong problems
	wrong.readNew(c.Fields, []field{{"value", label{&value, 1, 256}, required}})
	if err := wrong.refusal(ValidationFailed); err != nil {
		return nil, err
	}
	switch {
	case d.Entropy != nil && *d.Entropy == value:
		return nil, nil
	case d.Entropy != nil:
		return nil, Refuse(InvalidTransition, "the entropy was supplied already")
	case d.EntropySource == nil:
		return nil, Refuse(InvalidTransition, "no entropySource was named before the opening")
	case d.Status != StatusClosed:
		return nil, Refuse(InvalidTransition, "entropy is taken while CLOSED, and it is %s", d.Status)
	}
	return []Event{EntropySupplied{Stamp{now}, value}}, nil
}

// closesAt is when entering ends: at drawAt when there is no closeAt.
func (d *Draw) closesAt() Instant { return earlier(d.CloseAt, d.DrawAt) }

// awaitsEntropy reports whether the draw still waits for the value of its source.
func (d *Draw) awaitsEntropy() bool { return d.EntropySource != nil && d.Entropy == nil }

func (d *Draw) due(now Instant) ([]Event, error) {
	switch {
	case d.Status == StatusOpen && d.closesAt() <= now:
		// Nobody entered, so the Merkle tree has no leaves.
		root := hex.EncodeToString(emptyRoot())
		return []Event{DrawClosed{d.dated(d.closesAt()), root, 0}}, nil
	case d.Status == StatusClosed && d.DrawAt <= now && !d.awaitsEntropy():
		e, err := d.drawn(d.dated(d.DrawAt))
		if err != nil {
			return nil, err
		}
		return []Event{e}, nil
	case d.Status == StatusDrawn:
		// Nobody won, so nobody is left to claim.
		return []Event{Completed{d.dated(d.Latest)}}, nil
	}
	return d.Lifecycle.due(now), nil
}

// emptyRoot is the RFC 6962 Merkle root of an empty list: the hash of nothing.
func emptyRoot() []byte {
	sum := sha256.Sum256(nil)
	return sum[:]
}

// drawn is the event that reveals the secret. The secret, the frozen list and the entropy
// determine the seed. Without entrants nobody wins.
func (d *Draw) drawn(s Stamp) (Event, error) {
	secret, err := hex.DecodeString(d.Secret.Plain)
	if err != nil {
		return nil, err
	}
	root, err := hex.DecodeString(*d.EntriesRoot)
	if err != nil {
		return nil, err
	}
	var entropy []byte
	if d.Entropy != nil {
		entropy = []byte(*d.Entropy)
	}
	seed := HashParts([]byte("lotline-draw-v1"), secret, root, entropy)
	digest := HashParts([]byte("lotline-winners-v1"))
	return Drawn{
		Stamp:           s,
		Secret:          d.Secret.Plain,
		Entropy:         d.Entropy,
		Seed:            hex.EncodeToString(seed[:]),
		OperatorTrusted: d.EntropySource == nil,
		WinnerCount:     0,
		WinnersDigest:   hex.EncodeToString(digest[:]),
	}, nil
}

// Wake implements Aggregate.
func (d *Draw) Wake() Instant {
	switch {
	case d.Deleted:
		return 0
	case d.Status == StatusOpen:
		return d.closesAt()
	case d.Status == StatusClosed && !d.awaitsEntropy():
		return d.DrawAt
	case d.Status == StatusDrawn:
		return d.Latest
	}
	return d.wake()
}

// stepTime adds the step from CLOSED to DRAWN. Both by hand and by the clock, the step
// waits for the entropy.
func (d *Draw) stepTime(to Status) *Instant {
	if to == StatusDrawn && d.Status == StatusClosed && !d.awaitsEntropy() {
		return &d.DrawAt
	}
	return d.Lifecycle.stepTime(to)
}

// Evolve implements Aggregate.
func (d *Draw) Evolve(e Event) error {
	if err := d.checkNext(e); err != nil {
		return err
	}
	switch e := e.(type) {
	case *DrawCreated:
		d.DrawSettings, d.SeedCommitment, d.Secret = e.DrawSettings, e.SeedCommitment, e.Secret
		return d.begin(e, e.Identity, e.Common, KindDraw)
	case DrawClosed:
		if e.EntryCount != d.EntryCount {
			return ruleError(ruleEntries, "%d in the list, %d entered", e.EntryCount, d.EntryCount)
		}
		d.EntriesRoot = &e.EntriesRoot
		return d.move(e, StatusClosed, d.closesAt(), StatusOpen)
	case EntropySupplied:
		if d.Status != StatusClosed || !d.awaitsEntropy() {
			return ruleError(ruleEntropy, "in status %s", d.Status)
		}
		d.Entropy = &e.Value
		d.touch(e)
		return nil
	case Drawn:
		if d.awaitsEntropy() {
			return ruleError(ruleEntropy, "drawn without it")
		}
		if same := e.Entropy != nil && d.Entropy != nil && *e.Entropy == *d.Entropy; !same && (e.Entropy != nil || d.Entropy != nil) {
			return ruleError(ruleEntropy, "drawn with another")
		}
		secret, err := hex.DecodeString(e.Secret)
		if sum := sha256.Sum256(secret); err != nil || hex.EncodeToString(sum[:]) != d.SeedCommitment {
			return ruleError(ruleCommitment, "its hash is not %s", d.SeedCommitment)
		}
		return d.move(e, StatusDrawn, d.DrawAt, StatusClosed)
	case Completed:
		return d.move(e, StatusCompleted, 0, StatusDrawn)
	}
	return d.evolve(e, d)
}
