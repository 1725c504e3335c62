package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
)

// benchReport is what bench found.
type benchReport struct {
	Version     string         `json:"version"`
	Go          string         `json:"go"`
	Machine     string         `json:"machine"`
	Processors  int            `json:"processors"`
	Began       time.Time      `json:"began"`
	Connections int            `json:"connections"`
	Interrupted bool           `json:"interrupted"`
	Measures    []benchMeasure `json:"measures"`
	Ratios      []benchRatio   `json:"ratios"`
	Checks      []benchChecked `json:"checks"`
	Postgres    string         `json:"postgres,omitempty"` // what the server says of itself
	SQL         []string       `json:"sql,omitempty"`
}

// benchRatio is a figure that counts, beside what it should reach.
type benchRatio struct {
	Name   string  `json:"name"`
	Figure float64 `json:"figure"`
	// ByCPU is the same by the processors' time of server and generator together,
	// which tells less of what else the machine did; 0 when that is not known.
	ByCPU float64 `json:"byCpu,omitempty"`
	Floor float64 `json:"floor"`
	Aim   float64 `json:"aim"`
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

// find returns the measure of a server in a scenario, as fast as it answers or at a
// rate.
func (r *benchReport) find(scenario, server string, paced bool) (benchMeasure, bool) {
	i := slices.IndexFunc(r.Measures, func(m benchMeasure) bool {
		return m.Scenario == scenario && m.Server == server && m.Rate > 0 == paced
	})
	if i < 0 {
		return benchMeasure{}, false
	}
	return r.Measures[i], true
}

// compare works out the figures that count.
func (r *benchReport) compare() {
	for _, aim := range []struct {
		scenario, other string
		aim             float64
	}{
		{"enter", benchBare, 0.25},
		{"enter", benchTable, 2},
		{"status", benchBare, 0.5},
	} {
		ours, ok := r.find(aim.scenario, benchLotline, false)
		other, also := r.find(aim.scenario, aim.other, false)
		if !ok || !also || other.PerSecond == 0 {
			continue
		}
		ratio := benchRatio{
			Name: aim.scenario + " a second, of " + aim.other, Figure: ours.PerSecond / other.PerSecond,
			Floor: aim.aim / 2, Aim: aim.aim,
		}
		// What PostgreSQL itself takes is not known.
		if aim.other == benchBare && ours.ServerCPU > 0 && other.ServerCPU > 0 {
			ratio.ByCPU = (other.ServerCPU + other.OwnCPU) / (ours.ServerCPU + ours.OwnCPU)
		}
		r.Ratios = append(r.Ratios, ratio)
	}
	if paced, ok := r.find("enter", benchLotline, true); ok {
		r.Ratios = append(r.Ratios, benchRatio{Name: "enter at half of its rate, p99 in ms", Figure: paced.P99, Floor: 50, Aim: 25})
	}
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

func (r *benchReport) write(to io.Writer, asJSON bool) error {
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
