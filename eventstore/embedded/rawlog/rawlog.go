// Package rawlog is what stores are measured against: a file to which records are
// appended, as many as wait with one sync, with neither order nor index. Nothing
// that is durable can be quicker. It is for benchmarks alone.
package rawlog

import (
	"errors"
	"os"
	"sync"
)

// Bounds on what waits and on what is written at once.
const (
	queued    = 4096
	batchSize = 1024
)

// Log appends records to a file. Safe for concurrent use.
type Log struct {
	file    *os.File
	queue   chan appending
	writing sync.WaitGroup
}

type appending struct {
	record []byte
	done   chan error
}

// Create makes the file of a log.
func Create(path string) (*Log, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	l := &Log{file: file, queue: make(chan appending, queued)}
	l.writing.Go(l.write)
	return l, nil
}

// Append returns when record is on disk.
func (l *Log) Append(record []byte) error {
	a := appending{record: record, done: make(chan error, 1)}
	l.queue <- a
	return <-a.done
}

// Close is for when no Append is under way.
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
