package ledger

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Request is one change that a client asks for. The client may send it several times:
// each time is an attempt.
type Request struct {
	Client             string
	ID                 string // see AttemptID
	Method, Path, Body string
	Key, IfMatch       string // Idempotency-Key and If-Match, "" for none
	Effect             string // the eventName of the event that the request causes

	Attempts int
	// Reply is the first answer that is not in Denied, or nil if there is none yet. The
	// client relies on this answer.
	Reply *Reply
	// Denied has the answers in which the engine said that it could not carry out the
	// request at that time.
	Denied []Reply
	// Again has the answers to the attempts after Reply.
	Again []Reply
}

// Reply is the answer to an attempt.
type Reply struct {
	Attempt        int
	Status         int
	ETag, Location string
	Replayed       bool // the answer has Idempotent-Replayed: true
	RetryAfter     string
	Position       string
	Body           string
}

// AttemptID returns the X-Request-Id of an attempt.
func (r *Request) AttemptID(attempt int) string { return r.ID + "/" + strconv.Itoa(attempt) }

func (r *Request) String() string {
	s := fmt.Sprintf("%s %s %s key %q if-match %s %s", r.ID, r.Method, r.Path, r.Key, r.IfMatch, r.Body)
	if r.Reply != nil {
		s += fmt.Sprintf(" -> %+v, then %+v", *r.Reply, r.Again)
	}
	return s
}

// Send sends the next attempt to the engine at url, with a secret key.
func (r *Request) Send(c *http.Client, url, secret string) (*Reply, error) {
	r.Attempts++
	return r.SendAttempt(r.Attempts, c, url, secret)
}

// SendAttempt sends an attempt that the caller has already counted in Attempts. Several
// attempts can be sent at the same time.
func (r *Request) SendAttempt(n int, c *http.Client, url, secret string) (*Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.Method, url+r.Path, strings.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	req.Header.Set("X-Request-Id", r.AttemptID(n))
	if r.Body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.Key != "" {
		req.Header.Set("Idempotency-Key", r.Key)
	}
	if r.IfMatch != "" {
		req.Header.Set("If-Match", r.IfMatch)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &Reply{
		n, resp.StatusCode, resp.Header.Get("ETag"), resp.Header.Get("Location"),
		resp.Header.Get("Idempotent-Replayed") == "true", resp.Header.Get("Retry-After"), resp.Header.Get("X-Position"), string(got),
	}, nil
}
