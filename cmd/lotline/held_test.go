package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lotline/lotline/httpapi/apitest"
)

// document is what the program says of its API.
var document struct {
	sync.Mutex
	contract *apitest.Contract // nil until an engine was asked for it
}

// contractAt is the document that every call is held to. The engine at a URL is asked
// for it if none was before.
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

// held is a transport that holds what passes to the document: one in so many
// exchanges, because judging one takes as long as some take to be answered.
type held struct {
	t testing.TB
	http.RoundTripper
	oneIn  uint64
	passed atomic.Uint64
}

// RoundTrip implements http.RoundTripper.
func (h *held) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := h.RoundTripper.RoundTrip(r)
	if err != nil || h.passed.Add(1)%h.oneIn != 0 {
		return a, err
	}
	answer, err := io.ReadAll(a.Body)
	if err := errors.Join(err, a.Body.Close()); err != nil {
		return nil, err
	}
	a.Body = io.NopCloser(bytes.NewReader(answer))
	// Whoever answered may be dead by now.
	contract, err := contractAt(r.URL.Scheme + "://" + r.URL.Host)
	if err == nil {
		h.hold(contract, r, a, answer)
	}
	return a, nil
}

func (h *held) hold(contract *apitest.Contract, r *http.Request, a *http.Response, answer []byte) {
	var sent []byte
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err == nil {
			sent, err = io.ReadAll(body)
		}
		if err != nil {
			h.t.Error(err)
		}
	}
	err := contract.Check(apitest.Exchange{Request: r, Sent: sent, Status: a.StatusCode, Header: a.Header, Answer: answer})
	if err != nil {
		h.t.Errorf("%s %s %s: %d %s\nis not as the OpenAPI document says: %v", r.Method, r.URL.Path, sent, a.StatusCode, answer, err)
	}
}
