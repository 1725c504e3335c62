// Package bench is the load generator. It measures how fast an engine answers, draws
// and prints what it measured, and then checks that the engine's history agrees with
// every answer.
//
// It knows an engine only by its HTTP API. It must not share any rules with the engine,
// because it could not find the mistakes in them. It uses package domain only for the
// format of times and the levels of keys. Package main passes in the functions that an
// engine needs to start.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/mattn/go-isatty"

	"github.com/lotline/lotline/domain"
)

// Options says what to measure. Package main describes each field with its flag.
type Options struct {
	URL            string
	SecretKey      string
	PublishableKey string
	Dir            string
	Baseline       bool
	Postgres       string
	CPUProfile     string

	Scenario    []string
	Connections int
	Duration    time.Duration
	Most        int64
	Queues      int
	Waiting     int64
	Consumers   int64
	Within      time.Duration
	Tokens      bool

	JSON bool
	SVG  string
}

// Program describes the program that contains the load generator as a command.
type Program struct {
	Version string
	// Variables are the environment variables that configure the program. The servers
	// that are measured do not inherit them.
	Variables map[string]bool
	// Servers is the command whose subcommands engine, bare and table run the measured
	// servers: see ServeEngine, ServeBare and ServeTable.
	Servers string
	// NewKey returns a new API key.
	NewKey func(domain.KeyLevel) string

	Out, Err io.Writer // the report; progress, and what the servers log
}

// FlagError is an error that the user has to fix by changing a flag.
type FlagError struct{ error }

func (e FlagError) Unwrap() error { return e.error }

func badFlag(format string, args ...any) error {
	return FlagError{fmt.Errorf(format, args...)}
}

func (o *Options) validate() error {
	if o.URL != "" {
		if _, err := hostPort(o.URL); err != nil {
			return err
		}
		if o.SecretKey == "" || o.PublishableKey == "" {
			return badFlag("--url needs --secret-key and --publishable-key")
		}
		if o.CPUProfile != "" {
			return badFlag("--cpuprofile is for an engine that bench starts")
		}
	}
	if min(int64(o.Connections), int64(o.Queues), o.Waiting, o.Consumers, int64(o.Duration), int64(o.Within)) < 1 || o.Most < 0 {
		return badFlag("counts and times must be above 0, and --most must not be negative")
	}
	if o.Waiting < int64(o.Connections) {
		return badFlag("--waiting must be at least --connections")
	}
	if o.Tokens && o.Postgres != "" {
		return badFlag("--postgres cannot be used with --tokens: the service with the table does not know access tokens")
	}
	if o.Tokens && o.Most == 0 {
		o.Most = mostWithTokens
	}
	return nil
}

// mostWithTokens is the number of requests that a measurement has at most with
// --tokens, unless --most is given. An access token has to be made for each request
// beforehand.
const mostWithTokens = 20_000

// errChecks ends Run when an answer and the engine's history contradict each other.
var errChecks = errors.New("the answers do not agree with the history")

// Run measures, checks and reports. After an interrupt it checks and reports what was
// measured by then.
func Run(ctx context.Context, o Options, p Program) (err error) {
	if err := o.validate(); err != nil {
		return err
	}
	r := &runner{Options: o, program: p, prefix: uuid.NewString()[:24], report: newReport(p.Version, o.Connections)}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.begin(ctx); err != nil {
		return unlessInterrupted(ctx, err)
	}
	for _, name := range o.Scenario {
		if ctx.Err() != nil {
			break
		}
		if err := unlessInterrupted(ctx, r.scenario(ctx, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	r.report.Interrupted = ctx.Err() != nil
	r.report.compare()
	r.progress("")
	if err := r.report.write(p.Out, o.JSON); err != nil {
		return err
	}
	if o.SVG != "" {
		if err := os.WriteFile(o.SVG, r.report.draw(), 0o644); err != nil {
			return badFlag("--svg: %w", err)
		}
	}
	if r.report.Failed() {
		return errChecks
	}
	return nil
}

// unlessInterrupted returns err, but nil after an interrupt, which is not a failure.
func unlessInterrupted(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// runner is one run of the load generator.
type runner struct {
	Options

	program Program
	prefix  string // the beginning of every consumer's id
	dir     string // the started engine's directory; "" with --url
	api     *api
	engine  *server
	routes  []string  // the templates of the API's paths
	table   *postgres // nil without --postgres
	tokens  [][]byte  // the access tokens that were made, by the consumer's number
	report  *Report
}

func (r *runner) begin(ctx context.Context) (err error) {
	if r.URL != "" {
		address, err := hostPort(r.URL)
		if err != nil {
			return err
		}
		r.api = &api{strings.TrimRight(r.URL, "/"), r.SecretKey, r.PublishableKey}
		r.engine = &server{name: Lotline, address: address}
	} else {
		if r.dir, err = os.MkdirTemp(r.Dir, "lotline-bench-"); err != nil {
			return badFlag("--dir: %w", err)
		}
		if err = r.startEngine(ctx); err != nil {
			text, _ := os.ReadFile(filepath.Join(r.dir, "log"))
			return fmt.Errorf("%w\n%s", err, text)
		}
	}
	var document struct {
		Paths map[string]json.RawMessage `json:"paths"`
	}
	if err := r.api.call(ctx, http.MethodGet, "/openapi.json", "", &document); err != nil {
		return err
	}
	r.routes = slices.Sorted(maps.Keys(document.Paths))
	if r.Postgres != "" {
		r.table, err = openPostgres(ctx, r.Postgres)
	}
	return err
}

func (r *runner) close() (err error) {
	if r.table != nil {
		err = r.table.close()
	}
	if r.engine != nil {
		err = errors.Join(err, r.engine.stop())
	}
	if r.dir != "" {
		err = errors.Join(err, os.RemoveAll(r.dir))
	}
	return err
}

// progress tells the user what the run is doing. A terminal shows it in one line.
func (r *runner) progress(format string, args ...any) {
	f, isFile := r.program.Err.(*os.File)
	switch {
	case isFile && isatty.IsTerminal(f.Fd()):
		fmt.Fprintf(f, "\r\033[K"+format, args...)
	case format != "":
		fmt.Fprintf(r.program.Err, format+"\n", args...)
	}
}

func (r *runner) scenario(ctx context.Context, name string) error {
	switch name {
	case "enter":
		return r.enter(ctx, name, 1)
	case "enter-many":
		return r.enter(ctx, name, r.Queues)
	case "status":
		return r.status(ctx, name)
	default:
		return r.launch(ctx, name)
	}
}

// makeQueue creates an open queue. The settings are further fields of its JSON, each
// after a comma.
func (r *runner) makeQueue(ctx context.Context, settings string) (*queue, error) {
	var made struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	body := `{"sequenceId":"bench","name":"A load test","openAt":"2020-01-01T00:00:00Z"` + settings + `}`
	if err := r.api.call(ctx, http.MethodPost, "/api/v1/queues", body, &made); err != nil {
		return nil, err
	}
	if made.Status != "OPEN" {
		return nil, fmt.Errorf("the queue is %s", made.Status)
	}
	return newQueue(made.ID, r.Connections), nil
}
