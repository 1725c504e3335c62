package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lotline/lotline/domain"
)

// benchServer is what is measured: a process of its own, so that its CPU is told from
// the generator's.
type benchServer struct {
	name    string
	address string // host and port
	process *exec.Cmd
	stdin   io.Closer
	ended   chan error
}

// Names of what is measured.
const (
	benchLotline = "lotline"
	benchBare    = "bare"
	benchTable   = "postgres"
)

// startBenchServer runs this program with other arguments until it says where it
// listens. It ends when its standard input does, so it cannot outlive this process.
func startBenchServer(ctx context.Context, name string, hidden map[string]bool, env []string, input []byte, stderr io.Writer, args ...string) (*benchServer, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Not bound to ctx: it has to answer questions after an interrupt.
	c := exec.Command(path, args...) //nolint:noctx // see above
	// What the user has configured is meant for other engines.
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return hidden[name]
	})
	c.Env = append(c.Env, env...)
	c.Stderr = stderr
	// An interrupt of the terminal is not for it.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	s := &benchServer{name: name, process: c, stdin: in, ended: make(chan error, 1)}
	listening := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if u, ok := strings.CutPrefix(lines.Text(), "Lotline is listening on http://"); ok {
				listening <- u
			}
		}
		s.ended <- c.Wait()
	}()
	if _, err := in.Write(append(input, '\n')); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	select {
	case s.address = <-listening:
		return s, nil
	case err := <-s.ended:
		return nil, fmt.Errorf("start %s: it ended: %w", name, err)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), s.stop())
	}
}

// benchStopTimeout is how long a server may take to shut down.
const benchStopTimeout = 30 * time.Second

// stop ends the process, and waits for it.
func (s *benchServer) stop() error {
	if s.process == nil {
		return nil // somebody else's
	}
	err := s.stdin.Close()
	select {
	case ended := <-s.ended:
		return errors.Join(err, ended)
	case <-time.After(benchStopTimeout):
		return errors.Join(fmt.Errorf("%s did not end", s.name), s.process.Process.Kill(), <-s.ended)
	}
}

// cpu is what the server has used so far, by its own figures; false when it shows
// none.
func (s *benchServer) cpu(ctx context.Context) (time.Duration, bool) {
	// Also after an interrupt.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/metrics", http.NoBody)
	if err != nil {
		return 0, false
	}
	// To compress it would cost more than the figures do.
	r.Header.Set("Accept-Encoding", "identity")
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, false
	}
	defer a.Body.Close()
	for lines := bufio.NewScanner(a.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "process_cpu_seconds_total "); ok {
			seconds, err := strconv.ParseFloat(v, 64)
			return time.Duration(seconds * float64(time.Second)), err == nil
		}
	}
	return 0, false
}

const (
	// A server that takes less than a tenth of a processor has nothing to do.
	benchIdleLook  = 200 * time.Millisecond
	benchIdleShare = 0.1
	benchIdleLimit = 15 * time.Second
)

// settle waits until the server has nothing more to do, so that what is left over is
// not taken from whoever is measured next, and returns its CPU by then.
func (s *benchServer) settle(ctx context.Context) time.Duration {
	before, ok := s.cpu(ctx)
	for end := time.Now().Add(benchIdleLimit); ok && time.Now().Before(end); {
		looked := time.Now()
		if !sleepUntil(ctx, looked.Add(benchIdleLook)) {
			break
		}
		var now time.Duration
		if now, ok = s.cpu(ctx); ok && (now-before).Seconds() < benchIdleShare*time.Since(looked).Seconds() {
			return now
		}
		before = now
	}
	return before
}

// benchAPI calls a running Lotline for what is not measured.
type benchAPI struct {
	base           string // with the scheme, without a slash at the end
	secret, public string
}

func (a *benchAPI) request(ctx context.Context, method, path, body string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, a.base+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+a.secret)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}

// call fills into, unless that is nil, from the answer.
func (a *benchAPI) call(ctx context.Context, method, path, body string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, benchPatience)
	defer cancel()
	r, err := a.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %d %s", method, path, answer.StatusCode, bytes.TrimSpace(text))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// startBenchEngine starts an engine of its own below dir, with everything switched on.
// Its limits let through what is measured, and are counted.
func startBenchEngine(ctx context.Context, hidden map[string]bool, dir string, args ...string) (s *benchServer, api *benchAPI, err error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, nil, err
	}
	// The child has a descriptor of its own.
	defer func() { err = errors.Join(err, log.Close()) }()
	api = &benchAPI{secret: newKey(domain.SecretKey), public: newKey(domain.PublishableKey)}
	const many = "1000000000"
	s, err = startBenchServer(ctx, benchLotline, hidden, []string{
		"LOTLINE_DATA_DIR=" + filepath.Join(dir, "data"), "LOTLINE_LISTEN=127.0.0.1:0",
		"LOTLINE_SECRET_KEY=" + api.secret, "LOTLINE_PUBLISHABLE_KEY=" + api.public,
		"LOTLINE_RATE_LIMIT_SECRET=" + many, "LOTLINE_RATE_LIMIT_CONSUMER=" + many, "LOTLINE_RATE_LIMIT_PUBLIC=" + many,
		"LOTLINE_LOG_FORMAT=json",
	}, nil, log, append([]string{"bench-server", "engine"}, args...)...)
	if err != nil {
		return nil, nil, err
	}
	api.base = "http://" + s.address
	return s, api, nil
}

// benchServerCmd is what runs beside the generator. It is not for users.
type benchServerCmd struct {
	Engine benchEngineCmd `cmd:"" help:"The engine."`
	Bare   benchBareCmd   `cmd:"" help:"A router that answers the same bytes to everything."`
	Table  benchTableCmd  `cmd:"" help:"A service that writes to a table of PostgreSQL."`
}

type benchEngineCmd struct {
	serveCmd

	CPUProfile string `name:"cpuprofile" help:"Where to write what the processors did."`
}

// Run serves until the standard input ends.
func (c *benchEngineCmd) Run(ctx context.Context, s *settings, to streams) (err error) {
	if c.CPUProfile != "" {
		f, failed := os.Create(c.CPUProfile)
		if failed != nil {
			return badConfig("--cpuprofile: %w", failed)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := untilInputEnds(ctx, os.Stdin)
	defer stop()
	return c.serveCmd.Run(ctx, s, to)
}

// untilInputEnds is ctx, which ends with in as well.
func untilInputEnds(ctx context.Context, in io.Reader) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		// An error is an end too.
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx, cancel
}

type benchBareCmd struct{}

// benchBareInput says what a bare router answers.
type benchBareInput struct {
	Routes []string `json:"routes"` // templates of paths
	Body   string   `json:"body"`
}

// Run serves until the standard input ends.
func (benchBareCmd) Run(ctx context.Context, to streams) error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var what benchBareInput
	if err := json.Unmarshal(line, &what); err != nil {
		return err
	}
	router := mux.NewRouter()
	router.SkipClean(true)
	body := []byte(what.Body)
	for _, path := range what.Routes {
		router.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.Write(body)
		})
	}
	return serveBench(ctx, in, router, to.out)
}

// serveBench serves what a router has, and the CPU of this process, on loopback until
// in ends.
func serveBench(ctx context.Context, in io.Reader, router *mux.Router, out io.Writer) error {
	figures := prometheus.NewRegistry()
	figures.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	router.Handle("/metrics", promhttp.HandlerFor(figures, promhttp.HandlerOpts{}))
	ctx, stop := untilInputEnds(ctx, in)
	defer stop()
	l, err := listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := httpServer(router)
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Fprintf(out, "Lotline is listening on http://%s\n", l.Addr())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// hostPort is the host and port of a URL, for a connection without TLS.
func hostPort(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return "", badConfig("--url must look like http://host:port")
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "80"), nil
	}
	return u.Host, nil
}

// show fills into from what everybody may see.
func (a *benchAPI) show(ctx context.Context, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("X-Publishable-Key", a.public)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %d", path, answer.StatusCode)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}
