package bench

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// Sizes of the drawing, in pixels.
const (
	svgWidth   = 900
	svgPanel   = 300 // the height of a scenario
	svgLeft    = 70
	svgRight   = 250 // room for the names of the lines
	svgTop     = 40
	svgBottom  = 45
	svgLineGap = 18
)

// The colours of the servers, and those of the lines of a launch.
var (
	svgColours = map[string]string{Lotline: "#1f6feb", Bare: "#6e7781", Table: "#bc4c00"}
	svgOthers  = []string{"#1f6feb", "#bf3989", "#1a7f37", "#9a6700", "#6e7781"}
)

// svgPercentiles are the percentiles with a vertical line. The axis is logarithmic: the
// distances from 90 to 99, from 99 to 99.9 and from 99.9 to 99.99 are equal.
var svgPercentiles = []float64{0, 50, 90, 99, 99.9, 99.99}

// svgX returns the place of a percentile on the axis, from 0 to 1.
func svgX(percentile float64) float64 {
	const nines = 4 // up to 99.99
	return min(1, -math.Log10(1-percentile/100)/nines)
}

// svgScenario is the panel of a scenario with its lines.
type svgScenario struct {
	name  string
	lines []Measure
}

// draw returns an SVG with the latencies by percentile of each measure that has requests.
func (r *Report) draw() []byte {
	var panels []svgScenario
	for _, m := range r.Measures {
		if m.Requests == 0 {
			continue
		}
		name, _, _ := strings.Cut(m.Scenario, " ")
		i := slices.IndexFunc(panels, func(p svgScenario) bool { return p.name == name })
		if i < 0 {
			i, panels = len(panels), append(panels, svgScenario{name: name})
		}
		panels[i].lines = append(panels[i].lines, m)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", svgWidth, max(1, len(panels))*svgPanel)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n")
	for i, p := range panels {
		p.draw(&out, i*svgPanel)
	}
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func (p svgScenario) draw(out *bytes.Buffer, top int) {
	// The axis goes from one power of ten to another.
	least, most := math.Inf(1), math.Inf(-1)
	for _, m := range p.lines {
		least = min(least, float64(max(1, m.of.latencies.Min()))/1000)
		most = max(most, m.Max)
	}
	low, high := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	high = max(high, low+1)
	y0, y1 := float64(top+svgPanel-svgBottom), float64(top+svgTop)
	x := func(percentile float64) float64 {
		return svgLeft + svgX(percentile)*(svgWidth-svgLeft-svgRight)
	}
	y := func(ms float64) float64 {
		return y0 - (math.Log10(max(ms, math.Pow(10, low)))-low)/(high-low)*(y0-y1)
	}
	fmt.Fprintf(out, `<text x="%d" y="%d" font-size="15" font-weight="bold">%s</text>`+"\n", svgLeft, top+24, html.EscapeString(p.name))
	for e := low; e <= high; e++ {
		at := y(math.Pow(10, e))
		fmt.Fprintf(out, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#d0d7de"/>`, svgLeft, svgWidth-svgRight, at, at)
		fmt.Fprintf(out, `<text x="%d" y="%.1f" text-anchor="end">%g ms</text>`+"\n", svgLeft-6, at+4, math.Pow(10, e))
	}
	for _, percentile := range svgPercentiles {
		at := x(percentile)
		fmt.Fprintf(out, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#d0d7de"/>`, at, at, y0, y1)
		fmt.Fprintf(out, `<text x="%.1f" y="%.1f" text-anchor="middle">%g %%</text>`+"\n", at, y0+16, percentile)
	}
	fmt.Fprintf(out, `<text x="%d" y="%.1f" text-anchor="middle">of the requests took no longer</text>`+"\n", (svgLeft+svgWidth-svgRight)/2, y0+34)
	for i, m := range p.lines {
		m.draw(out, i, x, y, top+svgTop+8+i*svgLineGap)
	}
}

// draw writes the line of a measure and, on the right, its name.
func (m Measure) draw(out *bytes.Buffer, i int, x, y func(float64) float64, nameAt int) {
	_, deed, _ := strings.Cut(m.Scenario, " ")
	colour, dashes, name := svgColours[m.Server], "", m.Server+", as fast as it answers"
	switch {
	case deed != "":
		colour, name = svgOthers[(i+1)%len(svgOthers)], deed
	case m.Rate > 0:
		name = fmt.Sprintf("%s, %.0f a second", m.Server, m.Rate)
	case m.Scenario == "launch":
		name = "all together"
	default:
		dashes = ` stroke-dasharray="5 4"`
	}
	var points []string
	const steps = 100
	for s := range steps + 1 {
		percentile := 100 * (1 - math.Pow(10, -4*float64(s)/steps))
		// Percentiles beyond the slowest request have no value of their own.
		if percentile > 100*(1-1/float64(m.Requests)) {
			break
		}
		points = append(points, fmt.Sprintf("%.1f,%.1f", x(percentile), y(float64(m.of.latencies.ValueAtPercentile(percentile))/1000)))
	}
	fmt.Fprintf(out, `<polyline fill="none" stroke="%s" stroke-width="2"%s points="%s"/>`+"\n", colour, dashes, strings.Join(points, " "))
	left := svgWidth - svgRight + 12
	fmt.Fprintf(out, `<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="%s" stroke-width="2"%s/>`, left, left+24, nameAt, nameAt, colour, dashes)
	fmt.Fprintf(out, `<text x="%d" y="%d">%s</text>`+"\n", left+30, nameAt+4, html.EscapeString(name))
}
