package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lotline/lotline/domain"
)

func TestBody_thatIsNotAJSONObjectIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asJSON := header("Content-Type", "application/json")
	for name, c := range map[string]struct{ body, message string }{
		"nothing":              {"", "at byte 0: "},
		"blanks":               {"  ", "at byte 2: "},
		"cut short":            {`{"sequenceId":`, "at byte 14: "},
		"a stray letter":       {`{"sequenceId":x}`, "at byte 14: "},
		"a comma too many":     {`{"sequenceId":"s",}`, "at byte 18: "},
		"another object":       {`{"sequenceId":"s"} {}`, "at byte 19: "},
		"an array":             {` []`, "at byte 1: the body has to be an object"},
		"null":                 {`null`, "at byte 0: the body has to be an object"},
		"a field given twice":  {`{"sequenceId":"s","sequenceId":"t"}`, `"sequenceId" is given twice`},
		"a field spelled anew": {`{"sequenceId":"s","\u0073equenceId":"t"}`, `"sequenceId" is given twice`},
		"a name given twice":   {`{"sequenceId":"s","metadata":{"a":{"b":[{"c":1,"d":{"c":2},"c":3}]}}}`, `at byte 62: "c" is given twice`},
		"no UTF-8":             {"{\"sequenceId\":\"a\xffb\"}", "at byte 16: is not UTF-8"},
		"a byte order mark":    {"\xef\xbb\xbf{}", "at byte 0: "},
		"a comment":            {`{} // so`, "at byte 3: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for method, path := range map[string]string{
				http.MethodPost: "/api/v1/queues",
				http.MethodPut:  "/api/v1/queues/queue_01h455vb4pex5vsknk084sn02q",
			} {
				a := w.do(method, path, c.body, asJSON).refuses(http.StatusBadRequest, "Invalid JSON")
				if m := a.failure().Message; !strings.Contains(m, c.message) || !strings.HasPrefix(m, "at byte ") {
					t.Errorf("message %q, want %q", m, c.message)
				}
			}
		})
	}
}

func TestBody_fieldNamesAreCaseSensitive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do(http.MethodPost, "/api/v1/queues", `{"SequenceID":"s"}`).blames("SequenceID", "sequenceId")
}

func TestBody_contentTypeMustBeJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for contentType, ok := range map[string]bool{
		"application/json":                 true,
		"Application/JSON; charset=UTF-8":  true,
		"application/json;charset=\"utf-8": false,
		"application/json; charset=latin1": false,
		"application/merge-patch+json":     false,
		"text/plain":                       false,
		"":                                 false,
	} {
		a := w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, header("Content-Type", contentType))
		if ok {
			a.is(http.StatusCreated)
			continue
		}
		a.refuses(http.StatusUnsupportedMediaType, "Unsupported media type")
		if got := a.Header().Get("Accept"); got != "application/json" {
			t.Errorf("%q: Accept %q", contentType, got)
		}
	}
	without := func(r *http.Request) { r.Header.Del("Content-Type") }
	w.do(http.MethodPost, "/api/v1/queues", `{}`, without).refuses(http.StatusUnsupportedMediaType, "Unsupported media type")
	w.do(http.MethodPost, "/api/v1/queues", `{}`, header("Content-Encoding", "gzip")).refuses(http.StatusUnsupportedMediaType, "Unsupported media type")
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	w.do(http.MethodPost, path+"/open", `{}`, without).refuses(http.StatusUnsupportedMediaType, "Unsupported media type")
	w.do(http.MethodPost, path+"/open", "", without).is(http.StatusOK)
}

func TestBody_thatIsTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ofSize := func(n int) string {
		const start, end = `{"sequenceId":"s"`, `}`
		return start + strings.Repeat(" ", n-len(start)-len(end)) + end
	}
	unknownLength := func(r *http.Request) { r.ContentLength = -1 }
	w.do(http.MethodPost, "/api/v1/queues", ofSize(maxBody)).is(http.StatusCreated)
	w.do(http.MethodPost, "/api/v1/queues", ofSize(maxBody), unknownLength).is(http.StatusCreated)
	for _, o := range []option{func(*http.Request) {}, unknownLength} {
		w.do(http.MethodPost, "/api/v1/queues", ofSize(maxBody+1), o).refuses(http.StatusRequestEntityTooLarge, "Content too large")
	}
}

func TestBody_thatBreaksOffIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(http.MethodPost, "/api/v1/queues", `{}`, func(r *http.Request) {
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"a"`), brokenReader{}))
	})
	a.refuses(http.StatusBadRequest, "Invalid JSON")
	if m := a.failure().Message; !strings.Contains(m, "after 4 bytes") {
		t.Errorf("message %q", m)
	}
	if strings.Contains(w.logged.String(), `"level":"error"`) {
		t.Errorf("the client's failure is logged as ours: %s", w.logged)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// These cases need a real connection, because a ResponseRecorder cannot show them.
func TestBody_overARealConnectionHasItsLengthAndLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s","metadata":{"long":"`+strings.Repeat("x", 5000)+`"}}`)
	server := httptest.NewServer(w.api)
	t.Cleanup(server.Close)
	client := server.Client()
	t.Cleanup(client.CloseIdleConnections)
	type answer struct {
		status int
		length int64
		etag   string
		body   []byte
	}
	send := func(method, path string, body io.Reader) answer {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+myKey)
		r.Header.Set("Content-Type", "application/json")
		a, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		got, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer{a.StatusCode, a.ContentLength, a.Header.Get("Etag"), got}
	}
	get, head := send(http.MethodGet, path, http.NoBody), send(http.MethodHead, path, http.NoBody)
	if get.status != http.StatusOK || head.status != http.StatusOK || len(head.body) != 0 {
		t.Fatalf("GET %d, HEAD %d with %d bytes", get.status, head.status, len(head.body))
	}
	if get.length != int64(len(get.body)) || head.length != get.length || get.etag != head.etag {
		t.Errorf("GET %+v, HEAD %+v", get, head)
	}
	large := send(http.MethodPost, "/api/v1/queues", io.MultiReader(strings.NewReader("{"), strings.NewReader(strings.Repeat(" ", maxBody))))
	if large.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body of unknown length: %d", large.status)
	}
	if made := send(http.MethodPost, "/api/v1/queues", strings.NewReader(`{"sequenceId":"s"}`)); made.status != http.StatusCreated {
		t.Errorf("after that: %d", made.status)
	}
	if missing := send(http.MethodHead, path+"0", http.NoBody); missing.status != http.StatusNotFound {
		t.Errorf("HEAD of nothing: %d", missing.status)
	}
}

// FuzzBody compares the reading of bodies with package encoding/json: every accepted body is
// a valid object with the same members.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, ` {"a":1,"b":[{}],"c":null} `, `{"a":1,"a":2}`, `{"a":{"b":1,"b":2}}`, `[1]`, `{"a":}`, `{"a":1}}`,
		`{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":1e400}`, `{"":0}`, "\ufeff{}", `{"A":1,"a":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fields, err := body(b).fields()
		var want map[string]json.RawMessage
		plain := json.Unmarshal(b, &want)
		if err != nil {
			if refusal, ok := errors.AsType[*domain.Error](err); !ok || refusal.Code != invalidJSON {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		if names, distinct := countNames(b); names != distinct {
			t.Fatalf("let through with %d names for %d members", names, distinct)
		}
		if plain != nil || want == nil || !utf8.Valid(b) || len(want) != len(fields) {
			t.Fatalf("let through: %v, %d of %d fields", plain, len(fields), len(want))
		}
		for name, raw := range fields {
			if !bytes.Equal(raw, want[name]) {
				t.Fatalf("%q is %s, want %s", name, raw, want[name])
			}
			if !bytes.Equal(raw, bytes.TrimSpace(raw)) {
				t.Fatalf("%q has blanks around it", raw)
			}
		}
	})
}

// countNames counts the members that are written in a JSON text, and the members that are
// left after package encoding/json has read it.
func countNames(b []byte) (written, left int) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var whole any
	if d.Decode(&whole) != nil {
		return 0, 0
	}
	// Each colon outside of a string follows a member's name.
	for inString, i := false, 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\' && inString:
			i++
		case c == '"':
			inString = !inString
		case c == ':' && !inString:
			written++
		}
	}
	var count func(any)
	count = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			left += len(v)
			for _, member := range v {
				count(member)
			}
		case []any:
			for _, element := range v {
				count(element)
			}
		}
	}
	count(whole)
	return written, left
}

// A client that sends chunks does not know its body's length when it sends the headers.
func TestBody_anEmptyChunkedBodyIsNoBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inPieces := func(r *http.Request) {
		r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
		r.Header.Del("Content-Type")
	}
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	w.do(http.MethodPost, path+"/open", "", inPieces).is(http.StatusOK)
	w.do(http.MethodPost, path+"/close", "{}", inPieces).refuses(http.StatusUnsupportedMediaType, "Unsupported media type")
	w.do(http.MethodPost, path+"/close", "{}", func(r *http.Request) { r.ContentLength = -1 }).is(http.StatusOK)
}

// A call without a body refuses every field, also one with an empty name.
func TestBody_aFieldWithAnEmptyNameIsUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	w.do(http.MethodPost, path+"/open", `{"":1}`).blames("")
}
