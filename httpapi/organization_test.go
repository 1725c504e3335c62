package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

const organizationAt = "/api/v1/organization"

func TestOrganization_isAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(http.MethodGet, organizationAt, "").is(http.StatusOK)
	want := `{"id":"` + string(w.mine) + `","name":"Mine","timeZone":"Europe/Berlin","currencyCode":"EUR",` +
		`"createdAt":"2026-03-01T12:00:00.000Z","updatedAt":"2026-03-01T12:00:00.000Z"}`
	if a.Body.String() != want || a.Header().Get("Etag") != `"0"` {
		t.Errorf("shows %s %v, want %s", a.Body, a.Header(), want)
	}
	w.do(http.MethodGet, organizationAt, "", header("If-None-Match", `"0"`)).is(http.StatusNotModified)
	w.do(http.MethodGet, organizationAt, "", key(otherKey)).is(http.StatusOK).wants(map[string]any{"id": string(w.other), "name": "Other"})
	w.do(http.MethodGet, organizationAt, "", key(myPublic)).refuses(http.StatusUnauthorized, "Secret key required")
}

// A new default applies at once to distributions that are created afterwards. Existing
// distributions do not change.
func TestOrganization_newDefaultsApplyToLaterCreations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const auction = `{"sequenceId":"s","settleAt":"2026-06-01T12:00:00"}`
	before, _ := w.create("auctions", auction)
	was := w.do(http.MethodGet, before, "").Body.String()
	w.advance(time.Minute)
	a := w.do(http.MethodPut, organizationAt, `{"timeZone":"Asia/Tokyo","currencyCode":"JPY"}`).is(http.StatusOK)
	a.wants(map[string]any{"name": "Mine", "timeZone": "Asia/Tokyo", "currencyCode": "JPY", "updatedAt": "2026-03-01T12:01:00.000Z"})
	after, _ := w.create("auctions", auction)
	w.do(http.MethodGet, after, "").wants(map[string]any{"timeZone": "Asia/Tokyo", "currencyCode": "JPY", "settleAt": "2026-06-01T03:00:00.000Z"})
	if is := w.do(http.MethodGet, before, "").Body.String(); is != was {
		t.Errorf("from %s to %s", was, is)
	}
	w.do(http.MethodGet, organizationAt, "", key(otherKey)).wants(map[string]any{"timeZone": "UTC", "currencyCode": "USD"})
}

func TestOrganization_aPutWithoutAChangeWritesNoEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	count := func() int { return len(w.log.streams[w.mine.Stream()]) }
	before := count()
	w.advance(time.Minute)
	read := w.do(http.MethodGet, organizationAt, "")
	for _, body := range []string{`{}`, `{"name":"\u004dine"}`, read.Body.String()} {
		a := w.do(http.MethodPut, organizationAt, body).is(http.StatusOK)
		if a.Body.String() != read.Body.String() || a.Header().Get("Etag") != read.Header().Get("Etag") {
			t.Errorf("%s: answers %s %v", body, a.Body, a.Header())
		}
	}
	if count() != before {
		t.Errorf("%d events were written", count()-before)
	}
	w.do(http.MethodPut, organizationAt, `{"name":"Ours"}`).is(http.StatusOK)
	if count() != before+1 {
		t.Errorf("%d events were written for a change", count()-before)
	}
}

func TestOrganization_aBadChangeIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := len(w.log.streams[w.mine.Stream()])
	for body, fields := range map[string][]string{
		`{"name":"","timeZone":"Mars","currencyCode":"XXX"}`:                                            {"name", "timeZone", "currencyCode"},
		`{"name":null,"timeZone":null,"currencyCode":null}`:                                             {"name", "timeZone", "currencyCode"},
		`{"name":7,"timeZone":[],"currencyCode":{}}`:                                                    {"name", "timeZone", "currencyCode"},
		`{"name":"` + strings.Repeat("n", 201) + `"}`:                                                   {"name"},
		`{"currency":"EUR","keys":[],"id":"org_1","createdAt":"2026-01-01T00:00:00Z","updatedAt":null}`: {"currency", "keys", "id", "createdAt", "updatedAt"},
		`{"name":"fine","timeZone":"Europe/Berlin ","id":"` + string(w.mine) + `"}`:                     {"timeZone"},
	} {
		w.do(http.MethodPut, organizationAt, body).blames(fields...)
	}
	w.do(http.MethodPut, organizationAt, `{"name":"a","name":"b"}`).refuses(http.StatusBadRequest, "Invalid JSON")
	w.do(http.MethodPut, organizationAt, ``).refuses(http.StatusBadRequest, "Invalid JSON")
	if got := len(w.log.streams[w.mine.Stream()]); got != before {
		t.Errorf("%d events were written", got-before)
	}
}

func TestIfMatch_onTheOrganization(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.newKey(`{"level":"secret"}`) // a key does not change the organization's entity tag
	tag := w.do(http.MethodPut, organizationAt, `{"name":"A"}`, header("If-Match", `"0"`)).is(http.StatusOK).Header().Get("Etag")
	if read := w.do(http.MethodGet, organizationAt, "").Header().Get("Etag"); read != tag || tag == `"0"` {
		t.Errorf("the write has tag %s, the read %s", tag, read)
	}
	w.newKey(`{"level":"secret"}`)
	w.do(http.MethodPut, organizationAt, `{"name":"B"}`, header("If-Match", `"0"`)).refuses(http.StatusPreconditionFailed, "Precondition failed")
	w.do(http.MethodPut, organizationAt, `{"name":"B"}`, header("If-Match", "W/"+tag)).refuses(http.StatusPreconditionFailed, "Precondition failed")
	w.do(http.MethodPut, organizationAt, `{"name":"B"}`, header("If-Match", "nonsense")).blames("If-Match")
	w.do(http.MethodPut, organizationAt, `{"name":"B"}`, header("If-Match", tag)).is(http.StatusOK).wants(map[string]any{"name": "B"})
}

// After the answer to a change of a key or a default, this node applies the change.
func TestOrganization_anAnswerWaitsUntilTheChangeApplies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		late := func(write func()) {
			t.Helper()
			w.log.hold()
			time.AfterFunc(900*time.Millisecond, w.log.release)
			start := time.Now()
			write()
			if waited := time.Since(start); waited != 900*time.Millisecond {
				t.Errorf("waited %s", waited)
			}
		}
		var path, text string
		late(func() { path, _, text = w.newKey(`{"level":"secret"}`) })
		w.do(http.MethodPost, "/api/v1/queues", `{}`, key(text)).blames("sequenceId")
		late(func() { w.do(http.MethodDelete, path, "").is(http.StatusNoContent) })
		w.do(http.MethodPost, "/api/v1/queues", `{}`, key(text)).is(http.StatusUnauthorized)
		late(func() { w.do(http.MethodPut, organizationAt, `{"timeZone":"Asia/Tokyo"}`).is(http.StatusOK) })
		w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`).is(http.StatusCreated).wants(map[string]any{"timeZone": "Asia/Tokyo"})

		// If that takes too long, the answer is sent anyway.
		w.log.hold()
		start := time.Now()
		w.newKey(`{"level":"secret"}`)
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %s", waited)
		}
		w.log.release()
	})
}

// An organization whose own history is inconsistent is not answered as missing: a request
// that was already authenticated gets the error. Later requests are not authenticated,
// because the lost event may be the revocation of their key.
func TestOrganization_withAnInconsistentHistoryIsNotAnsweredAsMissing(t *testing.T) {
	t.Parallel()
	const text = "Distribution history is inconsistent"
	w := newWorld(t)
	w.log.hold()
	w.log.corrupt(w.mine.Stream())
	// The command handler notices it before the read models do, when it reads the stream.
	w.handlerRestarts()
	for _, call := range []struct{ method, path, body string }{
		{http.MethodPut, organizationAt, `{"name":"x"}`},
		{http.MethodPost, keysAt, `{"level":"secret"}`},
		{http.MethodDelete, keysAt + "/" + string(w.revokedID), ""},
	} {
		w.do(call.method, call.path, call.body).refuses(http.StatusInternalServerError, text)
	}
	for _, path := range []string{organizationAt, keysAt, keysAt + "/key_01h455vb4pex5vsknk084sn02s"} {
		w := newWorld(t)
		w.log.hold()
		w.log.corrupt(w.mine.Stream())
		w.config.Views = lateNews{w.views, w.log.release}
		w.api = New(w.config)
		w.do(http.MethodGet, path, "").refuses(http.StatusInternalServerError, text)
		w.do(http.MethodGet, path, "").refuses(http.StatusUnauthorized, "Authentication required")
		w.do(http.MethodGet, organizationAt, "", key(otherKey)).is(http.StatusOK)
	}
}

// lateNews are read models that learn of something after they looked up a key and before
// they answer the query.
type lateNews struct {
	*projections.Views
	hear func()
}

func (l lateNews) Organization(id domain.ID) (*domain.Organization, bool) {
	o, ok := l.Views.Organization(id)
	l.hear()
	return o, ok
}
