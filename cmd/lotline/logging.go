package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

// flushEvery is how long a log line may wait to be written.
const flushEvery = 100 * time.Millisecond

// newLogger returns the program's logger, and a function that writes the lines that
// are still buffered. In console format each line is written at once.
func newLogger(format string, to io.Writer) (logger zerolog.Logger, flush func() error) {
	zerolog.TimestampFunc = func() time.Time { return time.Now().UTC() }
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	f, isFile := to.(*os.File)
	terminal := isFile && isatty.IsTerminal(f.Fd())
	if format == "console" || (format == "auto" && terminal) {
		console := zerolog.ConsoleWriter{Out: to, TimeFormat: "15:04:05.000", NoColor: !terminal}
		return zerolog.New(console).Level(zerolog.InfoLevel).With().Timestamp().Logger(), func() error { return nil }
	}
	w := newLazyWriter(to)
	return zerolog.New(w).Level(zerolog.InfoLevel).With().Timestamp().Logger(), w.Close
}

// lazyWriter buffers writes and flushes them after flushEvery, so that not every log
// line costs a system call.
type lazyWriter struct {
	mu      sync.Mutex // guards the fields below
	to      *bufio.Writer
	pending bool
	closed  bool
}

func newLazyWriter(to io.Writer) *lazyWriter {
	return &lazyWriter{to: bufio.NewWriterSize(to, 64<<10)}
}

func (w *lazyWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.to.Write(p)
	if w.closed {
		return n, errors.Join(err, w.to.Flush())
	}
	if !w.pending {
		w.pending = true
		time.AfterFunc(flushEvery, w.flush)
	}
	return n, err
}

func (w *lazyWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = false
	// A bufio.Writer keeps its error, and the next Write returns it.
	_ = w.to.Flush()
}

// Close flushes the buffer. Later writes are flushed at once.
func (w *lazyWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return w.to.Flush()
}

// busLogger lets Watermill log through zerolog. It logs Watermill's info lines, which
// are about single messages, as debug lines.
type busLogger struct{ log zerolog.Logger }

func (b busLogger) Error(msg string, err error, fields watermill.LogFields) {
	b.log.Error().Err(err).Fields(map[string]any(fields)).Msg(msg)
}

func (b busLogger) Info(msg string, fields watermill.LogFields) {
	b.log.Debug().Fields(map[string]any(fields)).Msg(msg)
}

func (b busLogger) Debug(msg string, fields watermill.LogFields) {
	b.log.Debug().Fields(map[string]any(fields)).Msg(msg)
}

func (b busLogger) Trace(msg string, fields watermill.LogFields) {
	b.log.Trace().Fields(map[string]any(fields)).Msg(msg)
}

func (b busLogger) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return busLogger{b.log.With().Fields(map[string]any(fields)).Logger()}
}
