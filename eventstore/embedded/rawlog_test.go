package embedded

import (
	"os"
	"syscall"
	"testing"
)

// rawLog appends records to a file, as many as wait with one sync, and keeps
// neither order nor index. Nothing that is durable can be quicker.
type rawLog struct {
	queue chan rawAppend
}

type rawAppend struct {
	record []byte
	done   chan error
}

func newRawLog(t testing.TB, path string) *rawLog {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	log := &rawLog{queue: make(chan rawAppend, queuedWrites)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer file.Close()
		for first := range log.queue {
			batch := []rawAppend{first}
			for len(log.queue) > 0 && len(batch) < batchWrites {
				batch = append(batch, <-log.queue)
			}
			var bytes []byte
			for _, a := range batch {
				bytes = append(bytes, a.record...)
			}
			_, err := file.Write(bytes)
			if err == nil {
				err = syscall.Fdatasync(int(file.Fd()))
			}
			for _, a := range batch {
				a.done <- err
			}
		}
	}()
	t.Cleanup(func() {
		close(log.queue)
		<-ended
	})
	return log
}

func (l *rawLog) append(record []byte) error {
	a := rawAppend{record: record, done: make(chan error, 1)}
	l.queue <- a
	return <-a.done
}
