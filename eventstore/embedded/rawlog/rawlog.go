// Package rawlog is the baseline that benchmarks compare a store with. It does only what
// every durable store must do: it appends records to a file, and syncs the file once for
// all records that are waiting. It keeps no index, and no boundaries between records.
// Only benchmarks use it.
package rawlog

import (
	"errors"
	"os"
	"sync"
)

// queued is how many records may wait. batchSize is how many of them one write takes.
const (
	queued    = 4096
	batchSize = 1024
)

// Log appends records to a file. It is safe for concurrent use.
type Log struct {
	file    *os.File
	queue   chan appending
	writing sync.WaitGroup
}

type appending struct {
	record []byte
	done   chan error
}

// Create returns an empty log in the file at path. It overwrites a file that exists.
func Create(path string) (*Log, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	l := &Log{file: file, queue: make(chan appending, queued)}
	l.writing.Go(l.write)
	return l, nil
}

// Append appends a record and returns once it is on disk.
func (l *Log) Append(record []byte) error {
	a := appending{record: record, done: make(chan error, 1)}
	l.queue <- a
	return <-a.done
}

// Close closes the file. No Append may be in flight.
func (l *Log) Close() error {
	close(l.queue)
	l.writing.Wait()
	return l.file.Close()
}

func (l *Log) write() {
	for first := range l.queue {
		batch := []appending{first}
		for len(l.queue) > 0 && len(batch) < batchSize {
			batch = append(batch, <-l.queue)
		}
		var bytes []byte
		for _, a := range batch {
			bytes = append(bytes, a.record...)
		}
		_, err := l.file.Write(bytes)
		err = errors.Join(err, flush(l.file))
		for _, a := range batch {
			a.done <- err
		}
	}
}
