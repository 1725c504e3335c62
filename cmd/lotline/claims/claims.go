// Package claims checks what an engine tells about a queue over HTTP. It names the
// claims that every history of a queue must meet. It replays a history with the plain
// model of a queue, and counts for each claim how often it held and how often it did not.
//
// The load generator and package crowd use it. It must not use the rules of package
// domain, because it has to find the mistakes in them. It uses only the format of times
// of package domain.
package claims

import "fmt"

// The claims on the history of a queue, and on the answers that clients got about it.
const (
	Whole    = "the history has no gap, and each event has the hash of the event before it"
	Once     = "every acknowledged entry is in the history once"
	Asked    = "every event was caused by a request or was due"
	Order    = "an entry that was acknowledged before another request was sent comes first"
	Position = "the position in an answer is the place in the history"
	Turn     = "no consumer is admitted before one who entered earlier and still waits"
	Life     = "an entry is admitted at most once, and ends at most once"
	Rate     = "60 seconds hold no more admissions than the rate allows"
	Tally    = "the queue's count of consumers is that of the history"
	Forward  = "a waiting consumer's position never gets worse"
	End      = "the last status that a consumer was told is its final one"
	Table    = "the table has every entry that its service acknowledged"
)

// Verdict says how often a claim was checked and how often it did not hold.
type Verdict struct {
	Claim   string `json:"claim"`
	Looked  int64  `json:"looked"`
	Broken  int64  `json:"broken"`
	Example string `json:"example,omitempty"` // the first case in which it did not hold
}

// Hold counts one more check of the claim. ok says whether the claim held. The format and
// its arguments describe the case, and are used only if ok is false.
func (v *Verdict) Hold(ok bool, format string, args ...any) {
	v.Looked++
	if ok {
		return
	}
	if v.Broken++; v.Example == "" {
		v.Example = fmt.Sprintf(format, args...)
	}
}

// Add adds the counts of another verdict on the same claim.
func (v *Verdict) Add(o *Verdict) {
	v.Looked += o.Looked
	if v.Broken += o.Broken; v.Example == "" {
		v.Example = o.Example
	}
}

// Verdicts has one verdict for each claim, in the order in which the claims were
// first checked.
type Verdicts struct{ All []*Verdict }

// Of returns the verdict on a claim. If the claim was not checked yet, it returns a new
// verdict.
func (v *Verdicts) Of(claim string) *Verdict {
	for _, one := range v.All {
		if one.Claim == claim {
			return one
		}
	}
	one := &Verdict{Claim: claim}
	v.All = append(v.All, one)
	return one
}
