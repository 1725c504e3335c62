package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lotline/lotline/domain"
)

// The names of the servers that are measured.
const (
	Lotline = "lotline"
	Bare    = "bare"
	Table   = "postgres"
)

// server is a server that is measured. It runs in its own process, so that its CPU time
// and the generator's are counted separately.
type server struct {
	name    string
	address string // host and port
	process *exec.Cmd
	stdin   io.Closer
	ended   chan error
}

// listening is the beginning of the line in which a server prints its address.
const listening = "Lotline is listening on http://"

// startServer runs this program with the command of a server and waits until the
// server says where it listens. The server ends when its standard input does, so it
// cannot outlive this process.
func (r *runner) startServer(ctx context.Context, name string, env []string, input []byte, stderr io.Writer, command ...string) (*server, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Not bound to ctx: the server has to answer the checks after an interrupt.
	c := exec.Command(path, append([]string{r.program.Servers}, command...)...) //nolint:noctx // see above
	// The user's configuration is meant for other engines.
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return r.program.Variables[name]
	})
	c.Env = append(c.Env, env...)
	c.Stderr = stderr
	// A server in its own process group does not receive an interrupt from the terminal.
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
	s := &server{name: name, process: c, stdin: in, ended: make(chan error, 1)}
	addresses := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if address, ok := strings.CutPrefix(lines.Text(), listening); ok {
				addresses <- address
			}
		}
		s.ended <- c.Wait()
	}()
	if _, err := in.Write(append(input, '\n')); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	select {
	case s.address = <-addresses:
		return s, nil
	case err := <-s.ended:
		return nil, fmt.Errorf("start %s: it ended: %w", name, err)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), s.stop())
	}
}

// startEngine starts an engine in the run's directory, with everything switched on.
// Its rate limits let every measured request through, and still count it.
func (r *runner) startEngine(ctx context.Context) (err error) {
	log, err := os.Create(filepath.Join(r.dir, "log"))
	if err != nil {
		return err
	}
	// The process has its own descriptor of the file.
	defer func() { err = errors.Join(err, log.Close()) }()
	r.api = &api{secret: r.program.NewKey(domain.SecretKey), public: r.program.NewKey(domain.PublishableKey)}
	const many = "1000000000"
	env := []string{
		"LOTLINE_DATA_DIR=" + filepath.Join(r.dir, "data"), "LOTLINE_LISTEN=127.0.0.1:0",
		"LOTLINE_SECRET_KEY=" + r.api.secret, "LOTLINE_PUBLISHABLE_KEY=" + r.api.public,
		"LOTLINE_RATE_LIMIT_SECRET=" + many, "LOTLINE_RATE_LIMIT_CONSUMER=" + many, "LOTLINE_RATE_LIMIT_PUBLIC=" + many,
		"LOTLINE_LOG_FORMAT=json",
	}
	command := []string{"engine"}
	if r.CPUProfile != "" {
		command = append(command, "--cpuprofile", r.CPUProfile)
	}
	if r.engine, err = r.startServer(ctx, Lotline, env, nil, log, command...); err != nil {
		return err
	}
	r.api.base = "http://" + r.engine.address
	return nil
}

// stopTimeout is the longest time that a server may take to shut down.
const stopTimeout = 30 * time.Second

// stop ends the process and waits until it has ended.
func (s *server) stop() error {
	if s.process == nil {
		return nil // it was running before
	}
	err := s.stdin.Close()
	select {
	case ended := <-s.ended:
		return errors.Join(err, ended)
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("%s did not end", s.name), s.process.Process.Kill(), <-s.ended)
	}
}

// cpu returns the CPU time that the server has used so far, as its metrics say. It reports
// false if they do not say it.
func (s *server) cpu(ctx context.Context) (time.Duration, bool) {
	// The CPU time is needed even after an interrupt, when ctx has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/metrics", http.NoBody)
	if err != nil {
		return 0, false
	}
	// Compressing the metrics would cost the server more than collecting them.
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
	// A server is idle when it takes less than a tenth of a processor for 200 ms.
	idleLook  = 200 * time.Millisecond
	idleShare = 0.1
	idleLimit = 15 * time.Second
)

// settle waits until the server is idle, so that its remaining work does not slow the
// server that is measured next. It returns the server's CPU time by then.
func (s *server) settle(ctx context.Context) time.Duration {
	before, ok := s.cpu(ctx)
	for end := time.Now().Add(idleLimit); ok && time.Now().Before(end); {
		looked := time.Now()
		if !sleepUntil(ctx, looked.Add(idleLook)) {
			break
		}
		var now time.Duration
		if now, ok = s.cpu(ctx); ok && (now-before).Seconds() < idleShare*time.Since(looked).Seconds() {
			return now
		}
		before = now
	}
	return before
}
