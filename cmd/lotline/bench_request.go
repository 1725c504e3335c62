package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
)

// consumer appends the n-th consumer's id, which is like a UUID.
func (b *bench) consumer(dst []byte, n int64) []byte {
	const digits = 12
	dst = append(dst, b.prefix...)
	// An odd factor keeps them apart, and out of order.
	hex := strconv.AppendUint(make([]byte, 0, 16), uint64(n+1)*0x5DEECE66D15&(1<<(4*digits)-1), 16)
	for range digits - len(hex) {
		dst = append(dst, '0')
	}
	return append(dst, hex...)
}

func (b *bench) consumerID(n int64) string { return string(b.consumer(nil, n)) }

// What a consumer asks of a queue: the beginning of the request, and its end.
type benchPath struct{ head, tail []byte }

// path is what the consumers of a queue ask; action is the last part of its path.
func (b *bench) path(method, queue, action string) benchPath {
	head := method + " /api/v1/queues/" + queue + "/" + action + " HTTP/1.1\r\nHost: " + b.engine.address + "\r\n"
	if method == http.MethodPost {
		head += "Content-Length: 0\r\n"
	}
	if b.Tokens {
		return benchPath{[]byte(head + "X-Publishable-Key: " + b.api.public + "\r\nAuthorization: Bearer "), []byte("\r\n\r\n")}
	}
	return benchPath{[]byte(head + "Authorization: Bearer " + b.api.secret + "\r\nX-Consumer-Id: "), []byte("\r\n\r\n")}
}

// ask asks as the n-th consumer, and returns what is answered with 200.
func (b *bench) ask(c *benchClient, p benchPath, n int64) ([]byte, error) {
	c.out = append(c.out[:0], p.head...)
	if b.Tokens {
		c.out = append(c.out, b.tokens[n]...)
	} else {
		c.out = b.consumer(c.out, n)
	}
	c.out = append(c.out, p.tail...)
	status, body, err := c.do()
	if err == nil && status != http.StatusOK {
		err = statusFault(status, body)
	}
	return body, err
}

// askWhere is ask for what is answered with where the consumer stands.
func (b *bench) askWhere(c *benchClient, p benchPath, n int64) (benchStanding, error) {
	body, err := b.ask(c, p, n)
	if err != nil {
		return benchStanding{}, err
	}
	var id [64]byte
	return standingOf(body, b.consumer(id[:0], n))
}

// benchStanding is what an answer says of a consumer.
type benchStanding struct {
	status    string
	position  int64 // -1 for null
	pollAfter int64 // in ms, -1 for null
}

// standingOf reads an answer, which has to be about a consumer.
func standingOf(body, consumer []byte) (s benchStanding, err error) {
	if !bytes.Equal(benchText(body, `"consumerId":"`), consumer) {
		return s, benchError("the answer is about another consumer")
	}
	s.status = string(benchText(body, `"status":"`))
	if s.position, err = benchNumber(body, `"position":`); err != nil {
		return s, err
	}
	s.pollAfter, err = benchNumber(body, `"pollAfterMs":`)
	return s, err
}

// benchText is what stands behind a mark in an answer, up to the next quote.
func benchText(body []byte, mark string) []byte {
	_, rest, _ := bytes.Cut(body, []byte(mark))
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	return text
}

// benchNumber is the number behind a mark in an answer, -1 for null.
func benchNumber(body []byte, mark string) (int64, error) {
	_, rest, _ := bytes.Cut(body, []byte(mark))
	if bytes.HasPrefix(rest, []byte("null")) {
		return -1, nil
	}
	end := bytes.IndexAny(rest, ",}")
	n, err := strconv.ParseInt(string(rest[:max(end, 0)]), 10, 64)
	if err != nil {
		return 0, benchError("the answer has no " + mark)
	}
	return n, nil
}

// makeTokens makes the access tokens of the consumers 0 to n-1.
func (b *bench) makeTokens(ctx context.Context, n int64) error {
	if !b.Tokens || int64(len(b.tokens)) >= n {
		return nil
	}
	first := int64(len(b.tokens))
	b.tokens = append(b.tokens, make([][]byte, n-first)...)
	head := []byte("POST /api/v1/auth/consumer HTTP/1.1\r\nHost: " + b.engine.address + "\r\nAuthorization: Bearer " + b.api.secret +
		"\r\nContent-Type: application/json\r\nContent-Length: ")
	return b.each(ctx, n-first, "tokens", func(c *benchClient, _ int, i int64) error {
		body := append(b.consumer([]byte(`{"consumerId":"`), first+i), `"}`...)
		c.out = append(strconv.AppendInt(append(c.out[:0], head...), int64(len(body)), 10), "\r\n\r\n"...)
		c.out = append(c.out, body...)
		status, answer, err := c.do()
		if err == nil && status != http.StatusCreated {
			err = statusFault(status, answer)
		}
		b.tokens[first+i] = bytes.Clone(benchText(answer, `"accessToken":"`))
		return err
	})
}

// each does n things that are not measured, and gives up when one of them fails.
func (b *bench) each(ctx context.Context, n int64, what string, do func(c *benchClient, w int, i int64) error) error {
	clients, err := benchClients(b.Connections, b.engine.address)
	if err != nil {
		return err
	}
	defer closeBenchClients(clients)
	b.progress("%d %s", n, what)
	l := benchLoad{clients: clients, asked: new(atomic.Int64), most: n, lasts: longestPreparation, do: func(w int, i int64) error {
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
