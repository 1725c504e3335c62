package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/pprof"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ServeEngine calls engine, which must serve until its context ends. The context ends when
// ctx or in ends. If cpuProfile is not "", ServeEngine writes a CPU profile to that file.
func ServeEngine(ctx context.Context, in io.Reader, cpuProfile string, engine func(context.Context) error) (err error) {
	if cpuProfile != "" {
		f, failed := os.Create(cpuProfile)
		if failed != nil {
			return badFlag("--cpuprofile: %w", failed)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := untilInputEnds(ctx, in)
	defer stop()
	return engine(ctx)
}

// untilInputEnds returns a context that ends with ctx or when in does.
func untilInputEnds(ctx context.Context, in io.Reader) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		// An error ends the input as well.
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx, cancel
}

// bareInput is the input of ServeBare.
type bareInput struct {
	Routes []string `json:"routes"` // templates of paths
	Body   string   `json:"body"`
}

// ServeBare serves a router that answers every request with the same body. It reads its
// settings from the first line of in and serves until in ends. newServer must return a
// server with the same settings as the engine's.
func ServeBare(ctx context.Context, in io.Reader, out io.Writer, newServer func(http.Handler) *http.Server) error {
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	var what bareInput
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
	return serve(ctx, lines, out, router, newServer)
}

// serve serves a router, and the CPU time of this process as a metric, on loopback
// until in ends.
func serve(ctx context.Context, in io.Reader, out io.Writer, router *mux.Router, newServer func(http.Handler) *http.Server) error {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	router.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	ctx, stop := untilInputEnds(ctx, in)
	defer stop()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := newServer(router)
	context.AfterFunc(ctx, func() { _ = s.Close() })
	fmt.Fprintf(out, "%s%s\n", listening, l.Addr())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
