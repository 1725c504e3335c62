package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
)

// consumer appends the id of consumer n, which looks like a UUID.
func (r *runner) consumer(dst []byte, n int64) []byte {
	const digits = 12
	dst = append(dst, r.prefix...)
	// Multiplying by an odd number modulo 2^48 gives different ids in no visible order.
	hex := strconv.AppendUint(make([]byte, 0, 16), uint64(n+1)*0x5DEECE66D15&(1<<(4*digits)-1), 16)
	for range digits - len(hex) {
		dst = append(dst, '0')
	}
	return append(dst, hex...)
}

func (r *runner) consumerID(n int64) string { return string(r.consumer(nil, n)) }

// template is a consumer's request. The consumer's id or token goes between head and
// tail.
type template struct{ head, tail []byte }

// template returns the template of a request to a queue. action is the last part of the
// path.
func (r *runner) template(method, queue, action string) template {
	head := method + " /api/v1/queues/" + queue + "/" + action + " HTTP/1.1\r\nHost: " + r.engine.address + "\r\n"
	if method == http.MethodPost {
		head += "Content-Length: 0\r\n"
	}
	if r.Tokens {
		return template{[]byte(head + "X-Publishable-Key: " + r.api.public + "\r\nAuthorization: Bearer "), []byte("\r\n\r\n")}
	}
	return template{[]byte(head + "Authorization: Bearer " + r.api.secret + "\r\nX-Consumer-Id: "), []byte("\r\n\r\n")}
}

// ask sends a request of consumer n and returns the body of the answer. It returns an
// error if the status is not 200.
func (r *runner) ask(c *client, p template, n int64) ([]byte, error) {
	c.out = append(c.out[:0], p.head...)
	if r.Tokens {
		c.out = append(c.out, r.tokens[n]...)
	} else {
		c.out = r.consumer(c.out, n)
	}
	c.out = append(c.out, p.tail...)
	status, body, err := c.do()
	if err == nil && status != http.StatusOK {
		err = statusFault(status, body)
	}
	return body, err
}

// askWhere is ask for requests whose answer has the consumer's place.
func (r *runner) askWhere(c *client, p template, n int64) (standing, error) {
	body, err := r.ask(c, p, n)
	if err != nil {
		return standing{}, err
	}
	var id [64]byte
	return standingOf(body, r.consumer(id[:0], n))
}

// standing is a consumer's place in a queue, as an answer describes it.
type standing struct {
	status    string
	position  int64 // -1 for null
	pollAfter int64 // in ms, -1 for null
}

// standingOf reads an answer. It returns an error if the answer is about another consumer.
func standingOf(body, consumer []byte) (s standing, err error) {
	if !bytes.Equal(textAfter(body, `"consumerId":"`), consumer) {
		return s, answerError("the answer is about another consumer")
	}
	s.status = string(textAfter(body, `"status":"`))
	if s.position, err = numberAfter(body, `"position":`); err != nil {
		return s, err
	}
	s.pollAfter, err = numberAfter(body, `"pollAfterMs":`)
	return s, err
}

// textAfter returns the text between a mark in an answer and the next quote.
func textAfter(body []byte, mark string) []byte {
	_, rest, _ := bytes.Cut(body, []byte(mark))
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	return text
}

// numberAfter returns the number after a mark in an answer, -1 for null.
func numberAfter(body []byte, mark string) (int64, error) {
	_, rest, _ := bytes.Cut(body, []byte(mark))
	if bytes.HasPrefix(rest, []byte("null")) {
		return -1, nil
	}
	end := bytes.IndexAny(rest, ",}")
	n, err := strconv.ParseInt(string(rest[:max(end, 0)]), 10, 64)
	if err != nil {
		return 0, answerError("the answer has no " + mark)
	}
	return n, nil
}

// makeTokens makes the access tokens of the consumers 0 to n-1, with --tokens.
func (r *runner) makeTokens(ctx context.Context, n int64) error {
	if !r.Tokens || int64(len(r.tokens)) >= n {
		return nil
	}
	first := int64(len(r.tokens))
	r.tokens = append(r.tokens, make([][]byte, n-first)...)
	head := []byte("POST /api/v1/auth/consumer HTTP/1.1\r\nHost: " + r.engine.address + "\r\nAuthorization: Bearer " + r.api.secret +
		"\r\nContent-Type: application/json\r\nContent-Length: ")
	return r.each(ctx, n-first, "tokens", func(c *client, _ int, i int64) error {
		body := append(r.consumer([]byte(`{"consumerId":"`), first+i), `"}`...)
		c.out = append(strconv.AppendInt(append(c.out[:0], head...), int64(len(body)), 10), "\r\n\r\n"...)
		c.out = append(c.out, body...)
		status, answer, err := c.do()
		if err == nil && status != http.StatusCreated {
			err = statusFault(status, answer)
		}
		r.tokens[first+i] = bytes.Clone(textAfter(answer, `"accessToken":"`))
		return err
	})
}

// each sends n requests that are not measured. It returns an error when one of them
// fails.
func (r *runner) each(ctx context.Context, n int64, what string, do func(c *client, w int, i int64) error) error {
	clients, err := dialAll(r.Connections, r.engine.address)
	if err != nil {
		return err
	}
	defer closeAll(clients)
	r.progress("%d %s", n, what)
	l := load{clients: clients, asked: new(atomic.Int64), most: n, lasts: longestPreparation, do: func(w int, i int64) error {
		return do(clients[w], w, i)
	}}
	m := l.run(ctx)
	for fault, count := range m.faults {
		return fmt.Errorf("%s: %d × %s", what, count, fault)
	}
	if m.latencies.TotalCount() < n {
		return fmt.Errorf("%s: only %d of %d", what, m.latencies.TotalCount(), n)
	}
	return nil
}
