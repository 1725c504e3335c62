package main

import (
	"encoding/json"
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

// panel has the fields of a Grafana panel that a test needs.
type panel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ H, W, X, Y int }
	Targets []struct{ Expr string }
}

// dashboard returns the panels of the dashboard that show data.
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

// The page explains every alarm, and only alarms that exist.
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

func TestOperations_nameEveryFlagAndVariable(t *testing.T) {
	t.Parallel()
	page := operationsPage(t)
	parser, err := kong.New(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	var visit func(*kong.Node)
	visit = func(n *kong.Node) {
		for _, f := range n.Flags {
			if f.Name == "help" {
				continue
			}
			known["--"+f.Name] = true
			if len(f.Envs) == 0 {
				if !strings.Contains(page, "`--"+f.Name+"`") {
					t.Errorf("the page does not name --%s", f.Name)
				}
				continue
			}
			row := "| `--" + f.Name + "` | `" + strings.Join(f.Envs, "`, `") + "` | "
			if f.Default != "" {
				row += "`" + f.Default + "` |"
			}
			if !strings.Contains(page, "\n"+row) {
				t.Errorf("the page has no row that begins %s", row)
			}
			for _, env := range f.Envs {
				known[env] = true
			}
		}
		for _, child := range n.Children {
			visit(child)
		}
	}
	visit(parser.Model.Node)
	for _, m := range regexp.MustCompile("(?m)^\\| `(--[a-z-]+)` \\| `([A-Z_]+)`").FindAllStringSubmatch(page, -1) {
		if !known[m[1]] || !known[m[2]] {
			t.Errorf("there is no %s, or no %s", m[1], m[2])
		}
	}
	if !known["LOTLINE_LISTEN"] {
		t.Error("no flags were looked at")
	}
}

// The commands are run as the page has them, except for the paths.
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
	// The engine can decrypt the draw's secret.
	e.must(200, "POST", path+"/open", key, "")
	e.must(200, "POST", path+"/close", key, "")
	e.must(200, "POST", path+"/draw", key, "")
}
