package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"time"
)

// benchReport is what bench found.
type benchReport struct {
	Version     string             `json:"version"`
	Go          string             `json:"go"`
	Machine     string             `json:"machine"`
	Processors  int                `json:"processors"`
	Began       time.Time          `json:"began"`
	Connections int                `json:"connections"`
	Interrupted bool               `json:"interrupted"`
	Measures    []benchMeasure     `json:"measures"`
	Checks      []benchChecked     `json:"checks"`
}

// benchMeasure is one line of the report. Times are in milliseconds, but for CPU,
// which is in microseconds a request.
type benchMeasure struct {
	Scenario  string           `json:"scenario"`
	Server    string           `json:"server"`
	Rate      float64          `json:"rate,omitempty"` // requests started a second; 0: as fast as they are answered
	Requests  int64            `json:"requests"`
	Seconds   float64          `json:"seconds"`
	PerSecond float64          `json:"perSecond"`
	P50       float64          `json:"p50"`
	P99       float64          `json:"p99"`
	Max       float64          `json:"max"`
	ServerCPU float64          `json:"serverCpu"`
	OwnCPU    float64          `json:"generatorCpu"`
	Errors    map[string]int64 `json:"errors"`

	of *benchMeasured
}

// benchChecked is what was checked after a scenario.
type benchChecked struct {
	Scenario string          `json:"scenario"`
	Verdicts []*benchVerdict `json:"verdicts"`
}

func newBenchReport(c *benchCmd) *benchReport {
	return &benchReport{
		Version: programVersion(), Go: runtime.Version(), Machine: runtime.GOOS + "/" + runtime.GOARCH, Processors: runtime.NumCPU(),
		Began: time.Now().UTC(), Connections: c.Connections,
	}
}

func (r *benchReport) measured(scenario, server string, rate float64, m *benchMeasured) {
	n := m.latencies.TotalCount()
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(n, 1)) }
	ms := func(us int64) float64 { return float64(us) / 1000 }
	r.Measures = append(r.Measures, benchMeasure{
		Scenario: scenario, Server: server, Rate: rate, Requests: n, Seconds: m.took.Seconds(), PerSecond: m.perSecond(),
		P50: ms(m.latencies.ValueAtPercentile(50)), P99: ms(m.latencies.ValueAtPercentile(99)), Max: ms(m.latencies.Max()),
		ServerCPU: each(m.server), OwnCPU: each(m.generator), Errors: m.faults, of: m,
	})
}

// failed reports whether anything does not add up.
func (r *benchReport) failed() bool {
	for _, c := range r.Checks {
		for _, v := range c.Verdicts {
			if v.Broken > 0 {
				return true
			}
		}
	}
	return false
}

func (r *benchReport) print(to io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(to)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintf(to, "lotline %s, %s, %s, %d processors, %d connections, %s\n\n", r.Version, r.Go, r.Machine, r.Processors, r.Connections, r.Began.Format(time.RFC3339))
	fmt.Fprintf(to, "%-12s %-9s %9s %9s %9s %9s %9s %9s %9s %9s\n", "", "", "rate", "requests", "a second", "p50 ms", "p99 ms", "max ms", "server µs", "own µs")
	for _, m := range r.Measures {
		rate := "fastest"
		if m.Rate > 0 {
			rate = fmt.Sprintf("%.0f", m.Rate)
		}
		fmt.Fprintf(to, "%-12s %-9s %9s %9d %9.0f %9.2f %9.2f %9.2f %9.1f %9.1f\n", m.Scenario, m.Server, rate, m.Requests, m.PerSecond, m.P50, m.P99, m.Max, m.ServerCPU, m.OwnCPU)
		for _, e := range slices.Sorted(maps.Keys(m.Errors)) {
			fmt.Fprintf(to, "  %d × %s\n", m.Errors[e], e)
		}
	}
	for _, c := range r.Checks {
		fmt.Fprintf(to, "\n%s: what the server says afterwards\n", c.Scenario)
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
