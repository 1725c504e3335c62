package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"

	"github.com/lotline/lotline/domain"
)

// planted makes a mistake once.
type planted struct {
	mu    sync.Mutex // guards the fields below
	done  bool
	shown map[string]*shown // by client
	first *http.Request
	body  []byte // of first
}

// shown is the last answer to a client, and whether the client has sent an update since.
type shown struct {
	*httptest.ResponseRecorder
	overwritten bool
}

// ask lets the API answer r, and returns r's body too, so that r can be sent again.
func ask(api http.Handler, r *http.Request) (a *httptest.ResponseRecorder, body []byte) {
	body, _ = io.ReadAll(r.Body)
	return askAgain(api, r, body), body
}

func askAgain(api http.Handler, r *http.Request, body []byte) *httptest.ResponseRecorder {
	r.Body = io.NopCloser(bytes.NewReader(body))
	a := httptest.NewRecorder()
	api.ServeHTTP(a, r)
	return a
}

func pass(w http.ResponseWriter, a *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), a.Header())
	w.WriteHeader(a.Code)
	_, _ = w.Write(a.Body.Bytes())
}

// named reports whether an update sets a name. Each name is used once, so the update is
// unique.
func named(body []byte) bool { return bytes.Contains(body, []byte(`"name":"`)) }

// loseUpdate drops an update and answers as if it had been carried out.
func (p *planted) loseUpdate(api http.Handler, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done || r.Method != http.MethodPut || r.Header.Get("If-Match") != "" {
		api.ServeHTTP(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	get := r.Clone(r.Context())
	get.Method = http.MethodGet
	a := askAgain(api, get, nil)
	var was struct {
		Status domain.Status   `json:"status"`
		Name   json.RawMessage `json:"name"`
	}
	var change map[string]json.RawMessage
	if json.Unmarshal(a.Body.Bytes(), &was) != nil || json.Unmarshal(body, &change) != nil {
		panic("not JSON")
	}
	if was.Status != domain.StatusDraft && was.Status != domain.StatusScheduled || !named(body) || len(change) > 1 {
		pass(w, askAgain(api, r, body))
		return
	}
	p.done = true
	version, _ := strconv.Atoi(strings.Trim(a.Header().Get("ETag"), `"`))
	a.Header().Set("ETag", strconv.Quote(strconv.Itoa(version+1)))
	changed := bytes.Replace(a.Body.Bytes(), []byte(`"name":`+string(was.Name)), []byte(`"name":`+string(change["name"])), 1)
	a.Header().Del("Content-Length")
	a.Body = bytes.NewBuffer(changed)
	pass(w, a)
}

// readStale answers a read with the object as it was before the client's own update.
func (p *planted) readStale(api http.Handler, w http.ResponseWriter, r *http.Request) {
	client := r.Header.Get("X-Request-Id")
	isGet := r.Method == http.MethodGet && r.URL.RawQuery == ""
	p.mu.Lock()
	old := p.shown[client]
	p.mu.Unlock()
	if isGet && old != nil && old.overwritten {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.done, old.overwritten = true, false
		pass(w, old.ResponseRecorder)
		return
	}
	a, _ := ask(api, r)
	pass(w, a)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.done:
	case isGet && a.Code == http.StatusOK:
		p.shown[client] = &shown{a, false}
	case r.Method == http.MethodPut && a.Code == http.StatusOK && old != nil && a.Header().Get("ETag") != old.Header().Get("ETag"):
		old.overwritten = true
	}
}

// repeatUpdate carries an update out again after another one was answered.
func (p *planted) repeatUpdate(api http.Handler, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done || r.Method != http.MethodPut || r.Header.Get("If-Match") != "" {
		api.ServeHTTP(w, r)
		return
	}
	a, body := ask(api, r)
	switch {
	case a.Code != http.StatusOK:
	case p.first == nil && named(body):
		p.first, p.body = r.Clone(r.Context()), body
	case p.first != nil:
		again := askAgain(api, p.first.Clone(r.Context()), p.body)
		p.done = again.Code == http.StatusOK && again.Header().Get("ETag") != a.Header().Get("ETag")
	}
	pass(w, a)
}

// passCondition carries out an update although its If-Match does not hold.
func (p *planted) passCondition(api http.Handler, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, body := ask(api, r)
	if !p.done && r.Method == http.MethodPut && a.Code == http.StatusPreconditionFailed {
		r.Header.Del("If-Match")
		a = askAgain(api, r, body)
		p.done = a.Code == http.StatusOK
	}
	pass(w, a)
}
