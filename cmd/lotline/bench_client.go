package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// benchClient is one connection that asks one thing at a time. net/http would take
// more of the processors that are measured than all that is measured here, so it
// knows only as much HTTP/1.1 as the answers to measure use: a status line, and a
// body of a length that is told.
type benchClient struct {
	address string
	conn    net.Conn // nil until it is needed, and after an error
	in      *bufio.Reader
	out     []byte // the request, for whoever makes it to use again
	body    []byte
}

const (
	benchDialTimeout = 5 * time.Second
	// benchPatience is how long an answer may take.
	benchPatience = 20 * time.Second
)

func (c *benchClient) dial() error {
	if c.conn != nil {
		return nil
	}
	conn, err := (&net.Dialer{Timeout: benchDialTimeout}).Dial("tcp", c.address)
	if err != nil {
		return err
	}
	c.conn = conn
	if c.in == nil {
		c.in = bufio.NewReaderSize(nil, 4<<10)
	}
	c.in.Reset(conn)
	return nil
}

func (c *benchClient) close() {
	if c.conn != nil {
		// Nothing is under way that could be lost.
		_ = c.conn.Close()
		c.conn = nil
	}
}

var errBenchFraming = errors.New("not an answer of HTTP/1.1 with a Content-Length")

// do sends c.out and returns what is answered. The body is good until the next call.
func (c *benchClient) do() (status int, body []byte, err error) {
	if err := c.dial(); err != nil {
		return 0, nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := c.conn.SetDeadline(time.Now().Add(benchPatience)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, nil, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." {
		return 0, nil, errBenchFraming
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, errBenchFraming
	}
	length := -1
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, nil, err
		}
		if len(line) <= 2 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return 0, nil, errBenchFraming
			}
		}
	}
	if length < 0 {
		return 0, nil, errBenchFraming
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.in, c.body)
	return status, c.body, err
}

// benchClients are connections to one server, open.
func benchClients(n int, address string) ([]*benchClient, error) {
	all := make([]*benchClient, n)
	for i := range all {
		all[i] = &benchClient{address: address, out: make([]byte, 0, 1<<10)}
		if err := all[i].dial(); err != nil {
			closeBenchClients(all)
			return nil, fmt.Errorf("connect: %w", err)
		}
	}
	return all, nil
}

func closeBenchClients(all []*benchClient) {
	for _, c := range all {
		if c != nil {
			c.close()
		}
	}
}
