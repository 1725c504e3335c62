package main

import (
	"strings"
	"testing"
)

// The printed keys work, and the printed commands can be pasted into a shell.
func TestBanner_itsCommandsWork(t *testing.T) {
	t.Parallel()
	e := testBinary(t).serve(t, dataDirectory(t))
	e.secretKey()
	var pasted []string
	eventually(t, "all lines are printed", func() bool {
		pasted = nil
		for line := range strings.Lines(e.stdout.String()) {
			if rest, ok := strings.CutPrefix(line, "  curl "); ok && strings.HasSuffix(line, "\n") {
				pasted = append(pasted, strings.TrimSpace(rest))
			}
		}
		return len(pasted) == 4
	})
	for _, line := range pasted {
		url, rest, _ := strings.Cut(line, " ")
		quoted := strings.Split(rest, "'")
		method, data, status := "GET", "", 200
		var header []string
		for i := 0; i+1 < len(quoted); i += 2 {
			switch strings.TrimSpace(quoted[i]) {
			case "-H":
				name, value, _ := strings.Cut(quoted[i+1], ": ")
				header = append(header, name, value)
			case "-d":
				method, data, status = "POST", quoted[i+1], 201
			default:
				t.Fatalf("what is %q in %s", quoted[i], line)
			}
		}
		a := e.must(status, method, strings.TrimPrefix(url, e.url), "", data, header...)
		if method == "GET" && len(a.object(t)["data"].([]any)) != 3 {
			t.Errorf("the list has %s", a.body)
		}
	}
}
