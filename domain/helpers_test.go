package domain_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

const (
	uuid32 = "01h455vb4pex5vsknk084sn02q"
	orgID  = domain.ID("org_" + uuid32)

	// emptyRoot is the Merkle root of a list without entries.
	emptyRoot = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

var (
	secretBytes = [32]byte{1, 2, 3}
	secretHex   = hex.EncodeToString(secretBytes[:])
	defaults    = domain.Defaults{TimeZone: "UTC", CurrencyCode: "USD"}
)

func idOf(k domain.Kind) domain.ID { return domain.ID(string(k) + "_" + uuid32) }

// at is a time of day on 2026-12-15, UTC: "09:00" or "09:00:00.5".
func at(clock string) domain.Instant {
	if len(clock) == len("09:00") {
		clock += ":00"
	}
	i, err := domain.ParseInstant("2026-12-15T"+clock+"Z", "")
	if err != nil {
		panic(clock + " " + err.Error())
	}
	return i
}

func stamp(clock string) domain.Stamp { return domain.Stamp{At: at(clock)} }

var shortTime = regexp.MustCompile(`@(\d\d:\d\d)`)

// expand replaces the short times in a JSON text. "@09:00" is that time of day on
// 2026-12-15.
func expand(text string) string {
	return shortTime.ReplaceAllString(text, `2026-12-15T$1:00.000Z`)
}

// fields reads a request's body, in which times may be short.
func fields(body string) domain.Fields {
	var f domain.Fields
	if err := json.Unmarshal([]byte(expand(body)), &f); err != nil {
		panic(body + ": " + err.Error())
	}
	return f
}

var required = map[domain.Kind]string{
	domain.KindQueue:   `{"sequenceId": "drop-1"}`,
	domain.KindDraw:    `{"sequenceId": "drop-1", "drawAt": "@12:00", "winnerCount": 2}`,
	domain.KindAuction: `{"sequenceId": "drop-1", "settleAt": "@12:00"}`,
}

// createOnly is a creation with exactly these fields.
func createOnly(k domain.Kind, body string) domain.Create {
	return domain.Create{
		ID: idOf(k), OrganizationID: orgID, Fields: fields(body),
		Defaults: defaults, Seed: "made", Secret: secretBytes,
	}
}

// create is a creation with these fields and the required ones. Draws are drawn and
// auctions are settled at 12:00.
func create(k domain.Kind, body string) domain.Create {
	c := createOnly(k, required[k])
	maps.Copy(c.Fields, fields(body))
	return c
}

func update(body string) domain.Update { return domain.Update{Fields: fields(body)} }

func supply(value string) domain.SupplyEntropy {
	return domain.SupplyEntropy{Fields: fields(`{"value": "` + value + `"}`)}
}

// created is the event of a creation with only the required fields. set may change the
// fields.
func created(k domain.Kind, clock string, set func(*domain.Common)) domain.Event {
	identity := domain.Identity{ID: idOf(k), OrganizationID: orgID}
	common := domain.Common{SequenceID: "drop-1", TimeZone: "UTC", EncryptionSeed: domain.Secret{Plain: "made"}}
	if set != nil {
		set(&common)
	}
	switch k {
	case domain.KindQueue:
		return &domain.QueueCreated{Stamp: stamp(clock), Identity: identity, Common: common}
	case domain.KindDraw:
		commitment := sha256.Sum256(secretBytes[:])
		return &domain.DrawCreated{
			Stamp: stamp(clock), Identity: identity, Common: common,
			DrawSettings:   domain.DrawSettings{DrawAt: at("12:00"), WinnerCount: 2, Backfill: true},
			SeedCommitment: hex.EncodeToString(commitment[:]),
			Secret:         domain.Secret{Plain: secretHex},
		}
	case domain.KindAuction:
		return &domain.AuctionCreated{
			Stamp: stamp(clock), Identity: identity, Common: common,
			AuctionSettings: domain.AuctionSettings{
				SettleAt: at("12:00"), CurrencyCode: "USD", WinnerCount: 1, AuctionType: domain.English,
			},
		}
	case domain.KindOrganization, domain.KindClaim, domain.KindSeal, domain.KindSink, domain.KindSigning, domain.KindClock:
	}
	panic("not a distribution: " + k)
}

// times sets the schedule of a creation; an empty time stays unset.
func times(open, closing string) func(*domain.Common) {
	return func(c *domain.Common) {
		if open != "" {
			c.OpenAt = at(open)
		}
		if closing != "" {
			c.CloseAt = at(closing)
		}
	}
}

// updated is an update of fields, each given as "name old new".
func updated(clock string, cause domain.Cause, changes ...string) domain.Event {
	u := domain.Updated{Stamp: stamp(clock), Changed: map[string]domain.Change{}, Cause: cause}
	for _, c := range changes {
		p := strings.Fields(expand(c))
		u.Changed[p[0]] = domain.Change{Old: json.RawMessage(p[1]), New: json.RawMessage(p[2])}
	}
	return u
}

func scheduled(clock string) domain.Event   { return domain.Scheduled{Stamp: stamp(clock)} }
func unscheduled(clock string) domain.Event { return domain.Unscheduled{Stamp: stamp(clock)} }
func opened(clock string) domain.Event      { return domain.Opened{Stamp: stamp(clock)} }
func completed(clock string) domain.Event   { return domain.Completed{Stamp: stamp(clock)} }
func deleted(clock string) domain.Event     { return domain.Deleted{Stamp: stamp(clock)} }

func settled(clock string) domain.Event { return domain.Settled{Stamp: stamp(clock)} }

// closed is the step to CLOSED of a kind.
func closed(k domain.Kind, clock string) domain.Event {
	if k == domain.KindDraw {
		return domain.DrawClosed{Stamp: stamp(clock), EntriesRoot: emptyRoot}
	}
	return domain.Closed{Stamp: stamp(clock)}
}

// drawn is the result of a draw without entrants. It is computed here from the bytes
// that the seed must cover according to the documentation.
func drawn(clock, entropy string) domain.Event {
	root, _ := hex.DecodeString(emptyRoot)
	d := domain.Drawn{
		Stamp: stamp(clock), Secret: secretHex, OperatorTrusted: entropy == "",
		Seed:          lengthPrefixed("lotline-draw-v1", string(secretBytes[:]), string(root), entropy),
		WinnersDigest: lengthPrefixed("lotline-winners-v1"),
	}
	if entropy != "" {
		d.Entropy = &entropy
	}
	return d
}

func lengthPrefixed(parts ...string) string {
	var all []byte
	for _, p := range parts {
		all = binary.BigEndian.AppendUint64(all, uint64(len(p)))
		all = append(all, p...)
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:])
}

// end returns the events that follow CLOSED when nobody took part. A queue ends at
// once, the other kinds at 12:00.
func end(k domain.Kind, clock string) []domain.Event {
	switch k {
	case domain.KindQueue:
		return []domain.Event{completed(clock)}
	case domain.KindDraw:
		return []domain.Event{drawn(clock, ""), completed(clock)}
	case domain.KindAuction:
		return []domain.Event{settled(clock)}
	case domain.KindOrganization, domain.KindClaim, domain.KindSeal, domain.KindSink, domain.KindSigning, domain.KindClock:
	}
	panic("not a distribution: " + k)
}

// list joins events and lists of events into one list.
func list(parts ...any) []domain.Event {
	var out []domain.Event
	for _, p := range parts {
		switch p := p.(type) {
		case domain.Event:
			out = append(out, p)
		case []domain.Event:
			out = append(out, p...)
		default:
			panic("neither an event nor a list of them")
		}
	}
	return out
}

// reach is a history that ends in a status: created at 08:00, opened at 09:00, closed
// at 11:00. It reports false for a status that the kind does not have, or that it
// leaves at once.
func reach(k domain.Kind, s domain.Status) ([]domain.Event, bool) {
	inClosed := list(created(k, "08:00", times("09:00", "11:00")), scheduled("08:00"), opened("09:00"), closed(k, "11:00"))
	switch s {
	case domain.StatusDraft:
		return list(created(k, "08:00", times("", "11:00"))), true
	case domain.StatusScheduled:
		return inClosed[:2], true
	case domain.StatusOpen:
		return inClosed[:3], true
	case domain.StatusClosed:
		return inClosed, k != domain.KindQueue
	case domain.StatusDrawn:
		return nil, false
	case domain.StatusCompleted:
		if k == domain.KindQueue {
			return list(inClosed, end(k, "11:00")), true
		}
		return list(inClosed, end(k, "12:00")), k == domain.KindDraw
	case domain.StatusSettled:
		return list(inClosed, end(k, "12:00")), k == domain.KindAuction
	}
	return nil, false
}

// run runs scenarios by their claims.
func run(t *testing.T, scenarios map[string]domaintest.Scenario) {
	t.Helper()
	for claim, s := range scenarios {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			s.Run(t)
		})
	}
}

// forKinds runs the same scenarios for each kind of distribution.
func forKinds(t *testing.T, scenarios func(k domain.Kind) map[string]domaintest.Scenario) {
	t.Helper()
	for _, k := range domain.Kinds() {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			run(t, scenarios(k))
		})
	}
}

func problem(field, message string) domain.Detail {
	return domain.Detail{Field: field, Message: message}
}
