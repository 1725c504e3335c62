package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"
)

func operationsPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// panel is the part of a Grafana panel that the tests look at.
type panel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ H, W, X, Y int }
	Targets []struct{ Expr string }
}

// dashboard returns the panels of the dashboard, without the headings of rows.
func dashboard(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "grafana", "lotline.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct{ Panels []panel }
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(d.Panels, func(p panel) bool { return p.Type == "row" })
}

func TestDashboard_panelsShowSomethingAndHaveRoom(t *testing.T) {
	t.Parallel()
	panels := dashboard(t)
	if len(panels) == 0 {
		t.Fatal("there are no panels")
	}
	for i, p := range panels {
		if p.Title == "" || len(p.Targets) == 0 || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %+v", p)
		}
		for _, q := range panels[:i] {
			a, b := p.GridPos, q.GridPos
			if p.ID == q.ID || a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s lies on %s", p.Title, q.Title)
			}
		}
	}
}

// alarm is an alerting rule of Prometheus.
type alarm struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

func alarms(t *testing.T) []alarm {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "docs", "prometheus", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rules struct {
		Groups []struct {
			Name  string
			Rules []alarm
		}
	}
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	var all []alarm
	for _, g := range rules.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// The page has one heading for each alarm, in the order of the alarms, and no other.
func TestOperations_sayWhatEachAlarmMeans(t *testing.T) {
	t.Parallel()
	var named, told []string
	for _, a := range alarms(t) {
		named = append(named, a.Alert)
		if a.Expr == "" || a.Annotations["summary"] == "" || !slices.Contains([]string{"page", "ticket"}, a.Labels["severity"]) {
			t.Errorf("%+v", a)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Lotline\w+)$`).FindAllStringSubmatch(operationsPage(t), -1) {
		told = append(told, m[1])
	}
	if len(named) == 0 || !slices.Equal(named, told) {
		t.Errorf("there are the alarms\n%v\nand told of are\n%v", named, told)
	}
}

var updateConfiguration = flag.Bool("update-configuration", false, "write the flags of the program into the table in docs/operations.md")

// TestOperations_nameEveryFlagAndVariable makes the table of configuration in
// docs/operations.md from the program's flags: one row for each flag that has a
// variable, in the order of the help. The page keeps the text in its last column. Where
// a flag has no default, it keeps the text in that column as well. A flag without a
// variable has to be named somewhere on the page.
func TestOperations_nameEveryFlagAndVariable(t *testing.T) {
	t.Parallel()
	page := operationsPage(t)
	const begin, end = "<!-- configuration -->\n| flag | variable | default | |\n|---|---|---|---|\n", "<!-- /configuration -->"
	before, rest, ok := strings.Cut(page, begin)
	written, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("the page has no table of configuration")
	}
	type cells struct{ byDefault, text string }
	old := map[string]cells{}
	for line := range strings.Lines(written) {
		if c := strings.SplitN(strings.TrimSuffix(strings.TrimSpace(line), " |"), " | ", 4); len(c) == 4 {
			old[c[0]] = cells{c[2], c[3]}
		}
	}
	parser, err := kong.New(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	seen := map[string]bool{}
	var visit func(*kong.Node)
	visit = func(n *kong.Node) {
		for _, f := range n.Flags {
			switch {
			case f.Name == "help", seen[f.Name]:
			case len(f.Envs) == 0:
				if !strings.Contains(page, "`--"+f.Name+"`") {
					t.Errorf("the page does not name --%s", f.Name)
				}
			default:
				seen[f.Name] = true
				name := "| `--" + f.Name + "`"
				c, known := old[name]
				if !known {
					c = cells{"none", f.Help}
				}
				if f.Default != "" {
					c.byDefault = "`" + f.Default + "`"
				}
				fmt.Fprintf(&want, "%s | `%s` | %s | %s |\n", name, strings.Join(f.Envs, "`, `"), c.byDefault, c.text)
			}
		}
		for _, child := range n.Children {
			visit(child)
		}
	}
	visit(parser.Model.Node)
	if len(seen) == 0 {
		t.Fatal("the program has no flags with variables")
	}
	if want.String() == written {
		return
	}
	if *updateConfiguration {
		if err := os.WriteFile(filepath.Join(root, "docs", "operations.md"), []byte(before+begin+want.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the table is not that of the program; go test ./cmd/lotline -run Operations_name -update-configuration writes it:\n%s", want.String())
}

// The test runs the commands as they are written, in directories of its own.
func TestOperations_theCommandsForBackupAndRestoreWork(t *testing.T) {
	t.Parallel()
	page := operationsPage(t)
	base := filepath.Dir(dataDirectory(t))
	places := strings.NewReplacer("/var/lib/", base+"/lib/", "/backups/", base+"/backups/", "/elsewhere/", base+"/elsewhere/")
	for _, dir := range []string{"lib", "backups", "elsewhere", "bin"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	lotline := testBinary(t)
	if err := os.Symlink(lotline.path, filepath.Join(base, "bin", "lotline")); err != nil {
		t.Fatal(err)
	}
	commands := func(name string) string {
		t.Helper()
		_, rest, found := strings.Cut(page, "<!-- run: "+name+" -->\n```sh\n")
		block, _, ended := strings.Cut(rest, "```\n")
		if !found || !ended {
			t.Fatalf("the page has no commands %q", name)
		}
		return places.Replace(block)
	}
	shell := func(script string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script)
		c.Env = append(os.Environ(), append(lotline.env, "PATH="+filepath.Join(base, "bin")+":"+os.Getenv("PATH"))...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s\n%s", err, script, out)
		}
	}

	e := lotline.serve(t, base+"/lib/lotline")
	key := e.secretKey()
	draw := e.must(201, "POST", "/api/v1/draws", key, body(`{"sequenceId":"s","drawAt":%q,"winnerCount":1}`, in(3_600_000)))
	path := draw.header.Get("Location")
	shell(commands("backup"))
	shell(commands("key"))
	e.must(204, "DELETE", path, key, "")
	e.kill()
	if err := os.RemoveAll(base + "/lib/lotline"); err != nil {
		t.Fatal(err)
	}

	// The last command runs until it is stopped.
	copied, start, found := strings.Cut(commands("restore"), "LOTLINE_DATA_DIR=")
	dir, serves := strings.CutSuffix(start, " lotline serve --restored\n")
	if !found || !serves {
		t.Fatalf("the last command does not serve and declare the restore: %s", start)
	}
	shell(copied)
	e = lotline.serveWith(t, dir, restored)
	if got := e.must(200, "GET", path, key, ""); string(got.body) != string(draw.body) {
		t.Errorf("it was\n%s\nand is\n%s", draw.body, got.body)
	}
	// The draw needs its secret, which only the master key opens.
	e.must(200, "POST", path+"/open", key, "")
	e.must(200, "POST", path+"/close", key, "")
	e.must(200, "POST", path+"/draw", key, "")
}
