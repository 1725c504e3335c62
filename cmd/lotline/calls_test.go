package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lotline/lotline/httpapi/apitest"
)

// document is the API's OpenAPI document.
var document struct {
	sync.Mutex
	contract *apitest.Contract // nil until the first engine has sent it
}

// contractAt returns the OpenAPI document that every call is compared with. It reads
// the document from the engine at a URL, once for all tests.
func contractAt(url string) (*apitest.Contract, error) {
	document.Lock()
	defer document.Unlock()
	if document.contract != nil {
		return document.contract, nil
	}
	resp, err := http.Get(url + "/openapi.json")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	document.contract, err = apitest.New(text)
	return document.contract, err
}

// checkedTransport is a transport that compares one in so many exchanges with the
// OpenAPI document. Comparing an exchange can take as long as answering it.
type checkedTransport struct {
	t testing.TB
	http.RoundTripper
	oneIn  uint64
	passed atomic.Uint64
}

// RoundTrip implements http.RoundTripper.
func (c *checkedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := c.RoundTripper.RoundTrip(r)
	if err != nil || c.passed.Add(1)%c.oneIn != 0 {
		return a, err
	}
	answer, err := io.ReadAll(a.Body)
	if err := errors.Join(err, a.Body.Close()); err != nil {
		return nil, err
	}
	a.Body = io.NopCloser(bytes.NewReader(answer))
	// The engine may have died since it answered.
	contract, err := contractAt(r.URL.Scheme + "://" + r.URL.Host)
	if err == nil {
		c.check(contract, r, a, answer)
	}
	return a, nil
}

func (c *checkedTransport) check(contract *apitest.Contract, r *http.Request, a *http.Response, answer []byte) {
	var sent []byte
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err == nil {
			sent, err = io.ReadAll(body)
		}
		if err != nil {
			c.t.Error(err)
		}
	}
	err := contract.Check(apitest.Exchange{Request: r, Sent: sent, Status: a.StatusCode, Header: a.Header, Answer: answer})
	if err != nil {
		c.t.Errorf("%s %s %s: %d %s\nis not as the OpenAPI document says: %v", r.Method, r.URL.Path, sent, a.StatusCode, answer, err)
	}
}

// newHTTPClient returns a client for many requests at a time. It compares a quarter of
// the answers with the OpenAPI document.
func newHTTPClient(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: &checkedTransport{t: t, RoundTripper: transport, oneIn: 4}}
}

// answer is the answer to a call.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return m
}

func (e *engine) call(method, path, key, body string, header ...string) answer {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, e.url+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: http.DefaultTransport}
	if !e.foreign {
		client.Transport = &checkedTransport{t: e.t, RoundTripper: client.Transport, oneIn: 1}
	}
	resp, err := client.Do(req)
	if err != nil {
		e.t.Fatalf("%v\n%s", err, e.stderr)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, got}
}

// must makes a call. The test fails unless the answer has the status.
func (e *engine) must(status int, method, path, key, body string, header ...string) answer {
	e.t.Helper()
	a := e.call(method, path, key, body, header...)
	if a.status != status {
		e.t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	return a
}

// caller makes HTTP calls to the nodes of a cluster over its own connections.
type caller struct{ *http.Client }

func newCaller(t testing.TB) *caller {
	t.Helper()
	return &caller{newHTTPClient(t)}
}

// unchecked returns a caller that does not compare answers with the document. It is for
// handlers that do not follow the document, and for calls that must not be slowed down.
func (c *caller) unchecked() *caller {
	return &caller{&http.Client{Transport: c.Transport.(*checkedTransport).RoundTripper}}
}

// call is like engine.call, but returns an error where that one ends the test.
func (c *caller) call(ctx context.Context, method, url, body string, header http.Header) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+clusterKey)
	maps.Copy(req.Header, header)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, got}, err
}

// asking returns a function that calls a node of a cluster. With a consumer "" the call
// is for no consumer.
func asking(t *testing.T, c *cluster) func(node int, method, path, body, consumer string) answer {
	t.Helper()
	caller := newCaller(t)
	header := http.Header{"Authorization": {"Bearer " + clusterKey}, "Content-Type": {"application/json"}}
	return func(node int, method, path, body, consumer string) answer {
		h := header.Clone()
		if consumer != "" {
			h.Set("X-Consumer-Id", consumer)
		}
		a, err := caller.call(t.Context(), method, c.nodes[node].url+path, body, h)
		if err != nil {
			t.Error(err)
		}
		return a
	}
}
