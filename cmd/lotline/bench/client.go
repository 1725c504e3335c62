package bench

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

// client sends one request after another over one connection. The client of net/http
// would take more CPU than the server that is measured. So this one knows only the
// part of HTTP/1.1 that the measured answers use: a status line and a body with a
// Content-Length.
type client struct {
	address string
	conn    net.Conn // nil until it is needed, and after an error
	in      *bufio.Reader
	out     []byte // the next request; the caller reuses the memory
	body    []byte
}

const (
	dialTimeout = 5 * time.Second
	// patience is the longest time that an answer may take.
	patience = 20 * time.Second
)

func (c *client) dial() error {
	if c.conn != nil {
		return nil
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).Dial("tcp", c.address)
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

func (c *client) close() {
	if c.conn != nil {
		// No request is in flight that could be lost.
		_ = c.conn.Close()
		c.conn = nil
	}
}

var errFraming = errors.New("not an answer of HTTP/1.1 with a Content-Length")

// do sends c.out and returns the answer. The body is valid until the next call.
func (c *client) do() (status int, body []byte, err error) {
	if err := c.dial(); err != nil {
		return 0, nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
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
		return 0, nil, errFraming
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, errFraming
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
				return 0, nil, errFraming
			}
		}
	}
	if length < 0 {
		return 0, nil, errFraming
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.in, c.body)
	return status, c.body, err
}

// dialAll returns clients that are connected to one server.
func dialAll(n int, address string) ([]*client, error) {
	all := make([]*client, n)
	for i := range all {
		all[i] = &client{address: address, out: make([]byte, 0, 1<<10)}
		if err := all[i].dial(); err != nil {
			closeAll(all)
			return nil, fmt.Errorf("connect: %w", err)
		}
	}
	return all, nil
}

func closeAll(all []*client) {
	for _, c := range all {
		if c != nil {
			c.close()
		}
	}
}
