package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lotline/lotline/cmd/lotline/claims"
)

// Report is what a run measured and checked.
type Report struct {
	Version     string    `json:"version"`
	Go          string    `json:"go"`
	Machine     string    `json:"machine"`
	Processors  int       `json:"processors"`
	Began       time.Time `json:"began"`
	Connections int       `json:"connections"`
	Interrupted bool      `json:"interrupted"`
	Measures    []Measure `json:"measures"`
	Ratios      []Ratio   `json:"ratios"`
	Checks      []Checked `json:"checks"`
	Postgres    string    `json:"postgres,omitempty"` // the version and settings that the server reports
	SQL         []string  `json:"sql,omitempty"`
}

// Ratio is one of the figures that have a target.
type Ratio struct {
	Name   string  `json:"name"`
	Figure float64 `json:"figure"`
	// ByCPU is the same ratio of the CPU time of server and generator together. Other
	// load on the machine changes it less. It is 0 when the CPU time is not known.
	ByCPU float64 `json:"byCpu,omitempty"`
	Floor float64 `json:"floor"`
	Aim   float64 `json:"aim"`
}

// Measure is one line of the report. Latencies are in milliseconds. CPU time is in
// microseconds for each request.
type Measure struct {
	Scenario  string           `json:"scenario"`
	Server    string           `json:"server"`
	Rate      float64          `json:"rate,omitempty"` // requests due in a second; 0: as fast as they are answered
	Requests  int64            `json:"requests"`
	Seconds   float64          `json:"seconds"`
	PerSecond float64          `json:"perSecond"`
	P50       float64          `json:"p50"`
	P99       float64          `json:"p99"`
	Max       float64          `json:"max"`
	ServerCPU float64          `json:"serverCpu"`
	OwnCPU    float64          `json:"generatorCpu"`
	Errors    map[string]int64 `json:"errors"`

	of *measured
}

// Checked has the verdicts on a scenario.
type Checked struct {
	Scenario string            `json:"scenario"`
	Verdicts []*claims.Verdict `json:"verdicts"`
}

func newReport(version string, connections int) *Report {
	return &Report{
		Version: version, Go: runtime.Version(), Machine: runtime.GOOS + "/" + runtime.GOARCH, Processors: runtime.NumCPU(),
		Began: time.Now().UTC(), Connections: connections,
	}
}

func (r *Report) measured(scenario, server string, rate float64, m *measured) {
	n := m.latencies.TotalCount()
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(n, 1)) }
	ms := func(us int64) float64 { return float64(us) / 1000 }
	r.Measures = append(r.Measures, Measure{
		Scenario: scenario, Server: server, Rate: rate, Requests: n, Seconds: m.took.Seconds(), PerSecond: m.perSecond(),
		P50: ms(m.latencies.ValueAtPercentile(50)), P99: ms(m.latencies.ValueAtPercentile(99)), Max: ms(m.latencies.Max()),
		ServerCPU: each(m.server), OwnCPU: each(m.generator), Errors: m.faults, of: m,
	})
}

// Find returns the measure of a server in a scenario, and false if there is none. If paced
// is true, it is the measure at a fixed rate of requests. Otherwise it is the measure with
// requests as fast as the server answers them.
func (r *Report) Find(scenario, server string, paced bool) (Measure, bool) {
	i := slices.IndexFunc(r.Measures, func(m Measure) bool {
		return m.Scenario == scenario && m.Server == server && m.Rate > 0 == paced
	})
	if i < 0 {
		return Measure{}, false
	}
	return r.Measures[i], true
}

// compare computes the ratios.
func (r *Report) compare() {
	for _, aim := range []struct {
		scenario, other string
		aim             float64
	}{
		{"enter", Bare, 0.25},
		{"enter", Table, 2},
		{"status", Bare, 0.5},
	} {
		ours, ok := r.Find(aim.scenario, Lotline, false)
		other, also := r.Find(aim.scenario, aim.other, false)
		if !ok || !also || other.PerSecond == 0 {
			continue
		}
		ratio := Ratio{
			Name: aim.scenario + " a second, of " + aim.other, Figure: ours.PerSecond / other.PerSecond,
			Floor: aim.aim / 2, Aim: aim.aim,
		}
		// The CPU time of PostgreSQL itself is not known.
		if aim.other == Bare && ours.ServerCPU > 0 && other.ServerCPU > 0 {
			ratio.ByCPU = (other.ServerCPU + other.OwnCPU) / (ours.ServerCPU + ours.OwnCPU)
		}
		r.Ratios = append(r.Ratios, ratio)
	}
	if paced, ok := r.Find("enter", Lotline, true); ok {
		r.Ratios = append(r.Ratios, Ratio{Name: "enter at half of its rate, p99 in ms", Figure: paced.P99, Floor: 50, Aim: 25})
	}
}

// Failed reports whether any claim did not hold.
func (r *Report) Failed() bool {
	for _, c := range r.Checks {
		for _, v := range c.Verdicts {
			if v.Broken > 0 {
				return true
			}
		}
	}
	return false
}

func (r *Report) write(to io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(to)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintf(to, "lotline %s, %s, %s, %d processors, %d connections, %s\n\n", r.Version, r.Go, r.Machine, r.Processors, r.Connections, r.Began.Format(time.RFC3339))
	fmt.Fprintf(to, "%-16s %-9s %9s %9s %9s %9s %9s %9s %9s %9s\n", "", "", "rate", "requests", "a second", "p50 ms", "p99 ms", "max ms", "server µs", "own µs")
	for _, m := range r.Measures {
		rate := "fastest"
		switch {
		case m.Rate > 0:
			rate = fmt.Sprintf("%.0f", m.Rate)
		case strings.HasPrefix(m.Scenario, "launch"):
			rate = "as due"
		}
		fmt.Fprintf(to, "%-16s %-9s %9s %9d %9.0f %9.2f %9.2f %9.2f %9.1f %9.1f\n", m.Scenario, m.Server, rate, m.Requests, m.PerSecond, m.P50, m.P99, m.Max, m.ServerCPU, m.OwnCPU)
		for _, e := range slices.Sorted(maps.Keys(m.Errors)) {
			fmt.Fprintf(to, "  %d × %s\n", m.Errors[e], e)
		}
	}
	if len(r.Ratios) > 0 {
		fmt.Fprintf(to, "\n%-40s %9s %9s %9s %9s\n", "", "figure", "by CPU", "floor", "aim")
	}
	for _, f := range r.Ratios {
		byCPU := ""
		if f.ByCPU > 0 {
			byCPU = fmt.Sprintf("%.3f", f.ByCPU)
		}
		fmt.Fprintf(to, "%-40s %9.3f %9s %9g %9g\n", f.Name, f.Figure, byCPU, f.Floor, f.Aim)
	}
	if r.Postgres != "" {
		fmt.Fprintf(to, "\n%s\n", r.Postgres)
		for _, s := range r.SQL {
			fmt.Fprintf(to, "%s;\n", s)
		}
	}
	for _, c := range r.Checks {
		fmt.Fprintf(to, "\n%s: answers and history\n", c.Scenario)
		for _, v := range c.Verdicts {
			mark := "ok"
			if v.Broken > 0 {
				mark = "WRONG"
			}
			fmt.Fprintf(to, "  %-5s %9d  %s\n", mark, v.Looked, v.Claim)
			if v.Broken > 0 {
				fmt.Fprintf(to, "        %9d  do not, such as: %s\n", v.Broken, v.Example)
			}
		}
	}
	return nil
}
