package domain_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// nested is an object whose objects and arrays are nested that many levels deep.
func nested(levels int) string {
	return `{"a":` + strings.Repeat("[", levels-1) + strings.Repeat("]", levels-1) + `}`
}

// metadataCases makes scenarios in which a creation and an update set metadata. told
// has the expected error for each value, or "" when the value is accepted.
func metadataCases(t *testing.T, told map[string]string) {
	t.Helper()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		given := list(created(k, "08:00", nil))
		s := map[string]domaintest.Scenario{}
		for value, want := range told {
			put := domaintest.Scenario{Kind: k, Given: given, Now: at("08:10"), When: update(`{"metadata": ` + value + `}`)}
			post := domaintest.Scenario{Kind: k, Now: at("08:10"), When: create(k, `{"metadata": `+value+`}`)}
			if want == "" {
				put.Then = list(domain.Updated{
					Stamp: stamp("08:10"), Cause: domain.CauseUpdate,
					Changed: map[string]domain.Change{"metadata": {Old: json.RawMessage("null"), New: json.RawMessage(value)}},
				})
				post.Then = list(created(k, "08:10", func(c *domain.Common) { c.Metadata = json.RawMessage(value) }))
			} else {
				put.Refused, put.Details = domain.ValidationFailed, []domain.Detail{problem("metadata", want)}
				post.Refused, post.Details = put.Refused, put.Details
			}
			s["changed: "+value], s["created: "+value] = put, post
		}
		return s
	})
}

// Some widely used JSON parsers fail at a few hundred levels. One such object would
// make a whole list unreadable for them.
func TestMetadata_isNoDeeperThanCommonReadersGo(t *testing.T) {
	t.Parallel()
	const deep = "must be nested at most 64 levels deep"
	metadataCases(t, map[string]string{
		nested(64):   "",
		nested(65):   deep,
		nested(7000): deep,
		`{"wide":[` + strings.Repeat(`{"b":[]},`, 100) + `{}]}`:                "",
		`{"in a string":"` + strings.Repeat(`\"[{`, 100) + `\\","x":[]}`:       "",
		`{"` + strings.Repeat("[", 100) + `":1}`:                               "",
		`{"\\":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`:     deep,
		`{"\"":` + strings.Repeat(`{"a":`, 64) + `1` + strings.Repeat(`}`, 65): deep,
	})
}

func TestMetadata_halfACharacterIsRefusedAtAnyDepth(t *testing.T) {
	t.Parallel()
	const half = "must be Unicode: half of a surrogate pair is no character"
	metadataCases(t, map[string]string{
		`{"a":"\ud800"}`:                     half,
		`{"a":[{"b":"x\uDFFFy"}]}`:           half,
		`{"a":{"\udc00":1}}`:                 half,
		`{"a":"\ud83d\ude00","b":"\\ud800"}`: "",
	})
}

// Earlier versions accepted metadata that is refused now. Their histories still replay,
// and such metadata can be replaced.
func TestMetadata_thatWasTakenOnceIsReplayed(t *testing.T) {
	t.Parallel()
	for name, was := range map[string]string{"deep": nested(7000), "half a character": `{"a":"\ud800","b":[{"\udfff":1}]}`} {
		forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
			given := list(
				created(k, "08:00", func(c *domain.Common) { c.Metadata = json.RawMessage(was) }),
				updated("08:10", domain.CauseUpdate, `metadata `+was+` null`),
				updated("08:20", domain.CauseUpdate, `metadata null `+was),
			)
			return map[string]domaintest.Scenario{
				name + ", while all else changes": {
					Kind: k, Given: given, Now: at("08:30"), When: update(`{"name": "x"}`),
					Then: list(updated("08:30", domain.CauseUpdate, `name null "x"`)),
				},
				name + ", and is replaced": {
					Kind: k, Given: given, Now: at("08:30"), When: update(`{"metadata": {}}`),
					Then: list(updated("08:30", domain.CauseUpdate, `metadata `+was+` {}`)),
				},
			}
		})
	}
}

// A JSON decoder replaces every half of a surrogate pair by the same replacement
// character.
func TestUpdate_halfACharacterIsNotWhatItIsReadAs(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		return map[string]domaintest.Scenario{
			"so replacing it is a change": {
				Kind: k, Now: at("08:10"), When: update(`{"metadata": {"a":"\ufffd"}}`),
				Given: list(created(k, "08:00", func(c *domain.Common) { c.Metadata = json.RawMessage(`{"a":"\ud800"}`) })),
				Then:  list(updated("08:10", domain.CauseUpdate, `metadata {"a":"\ud800"} {"a":"\ufffd"}`)),
			},
		}
	})
}
