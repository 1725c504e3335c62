package bench

import (
	"io"
	"net"
	"testing"
)

// The client returns an error for every answer that is not complete HTTP with a
// Content-Length. It can read the next answer all the same.
func TestBenchClient_refusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	answers := []string{
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"SSH-2.0-OpenSSH\r\n",
		"HTTP/1.1 2x0 OK\r\nContent-Length: 1\r\n\r\na",
		"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for _, a := range append(answers, "HTTP/1.1 200 OK\r\ncontent-Length: 3\r\n\r\nabc") {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, 4))
			_, _ = io.WriteString(c, a)
			_ = c.Close()
		}
	}()
	c := &client{address: l.Addr().String(), out: []byte("ask\n")}
	defer c.close()
	for _, a := range answers {
		if status, body, err := c.do(); err == nil {
			t.Errorf("%q: %d %s", a, status, body)
		}
	}
	if status, body, err := c.do(); err != nil || status != 200 || string(body) != "abc" {
		t.Errorf("%d %s, %v", status, body, err)
	}
}
