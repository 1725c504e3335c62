// Package claims checks what an engine tells of a queue over HTTP. It names the
// claims that every history of a queue must meet, carries a history out with the plain
// model of a queue, and counts for each claim how often it held and how often it did
// not.
//
// The load generator and the check of recorded calls use it. It must not ask package
// domain what happens in a queue, because it has to find the mistakes of that package.
// It takes no more from there than the form of times.
package claims

import "fmt"

// The claims on the history of a queue, and on the answers that clients got about it.
const (
	Whole    = "the history has no gap, and each event names the hash of the one before"
	Once     = "every acknowledged entry is in the history once"
	Asked    = "nothing is in the history that nobody asked for"
	Order    = "who was acknowledged before another asked stands before the other"
	Position = "the position that was answered is the place in the history"
	Turn     = "nobody is admitted before someone who entered earlier and still waits"
	Life     = "nobody is admitted twice for one entry, and entries end once"
	Rate     = "60 seconds hold no more admissions than the rate allows"
	Tally    = "the queue's count is that of the history"
	Forward  = "a place never gets worse while its owner waits"
	End      = "what a consumer was told last is how it ended"
	Table    = "the table has what was acknowledged from it"
)

// Verdict says how often a claim was checked and how often it did not hold.
type Verdict struct {
	Claim   string `json:"claim"`
	Looked  int64  `json:"looked"`
	Broken  int64  `json:"broken"`
	Example string `json:"example,omitempty"` // the first case in which it did not hold
}

// Hold counts another check of the claim. The format and its arguments describe the
// case; they are used only when ok is false.
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

// Of returns the verdict on a claim, a new one when the claim was not checked yet.
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
