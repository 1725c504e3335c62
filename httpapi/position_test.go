package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// farAlong is the position of the log's end in a world with many events of other
// organizations. No other number in the answers begins with the same digits.
const farAlong = 0x1234_5678_9abc_0000

// tellers are the forms in which an answer could reveal a position after farAlong.
var tellers = func() map[string][]byte {
	const known = 5 // the number of bytes that do not change during a test
	big, little := binary.BigEndian.AppendUint64(nil, farAlong)[:known], binary.LittleEndian.AppendUint64(nil, farAlong)[8-known:]
	return map[string][]byte{
		"in decimal":             []byte(strconv.FormatUint(farAlong, 10)[:10]),
		"in hexadecimal":         []byte(hex.EncodeToString(big)),
		"with the highest first": big,
		"with the lowest first":  little,
	}
}()

var wordOfBase64 = regexp.MustCompile(`[A-Za-z0-9_+/-]{11,}`)

// tells returns the form in which a text reveals a position after farAlong, or "" if it does
// not. It also decodes base64.
func tells(text string) string {
	texts := [][]byte{[]byte(strings.ToLower(text))}
	for _, word := range wordOfBase64.FindAllString(text, -1) {
		word = strings.NewReplacer("+", "-", "/", "_").Replace(word)
		for from := range min(4, len(word)) {
			rest := word[from:]
			if decoded, err := base64.RawURLEncoding.DecodeString(rest[:len(rest)-len(rest)%4]); err == nil {
				texts = append(texts, decoded)
			}
		}
	}
	for how, beginning := range tellers {
		for _, t := range texts {
			if bytes.Contains(t, beginning) {
				return how
			}
		}
	}
	return ""
}

// Positions count the events of all organizations. No answer reveals one: not to a secret
// key, a publishable key, a consumer, or a client without a key.
func TestPosition_noAnswerTellsWhereTheLogEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, told := range []string{
		fmt.Sprintf("at %d", uint64(farAlong+7)), fmt.Sprintf("at %X", uint64(farAlong+7)),
		"x" + base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, farAlong+7)),
	} {
		if tells(told) == "" {
			t.Fatalf("it is overlooked in %q", told)
		}
	}
	w.log.count = farAlong
	answers := 0
	api := w.api
	w.api = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a := httptest.NewRecorder()
		api.ServeHTTP(a, r)
		answers++
		for name, values := range a.Header() {
			rw.Header()[name] = values
			if how := tells(strings.Join(values, " ")); how != "" {
				t.Errorf("%s %s: %s tells the position %s: %q", r.Method, r.URL.Path, name, how, values)
			}
		}
		if how := tells(a.Body.String()); how != "" {
			t.Errorf("%s %s: the body tells the position %s: %s", r.Method, r.URL.Path, how, a.Body)
		}
		rw.WriteHeader(a.Code)
		_, _ = rw.Write(a.Body.Bytes())
	})

	for _, c := range kindCases {
		path, id := w.create(c.collection, c.body)
		w.do(http.MethodPut, path, `{"name":"<b>"}`).is(http.StatusOK)
		for _, read := range []string{path, "/api/v1/" + c.collection, "/api/v1/" + c.collection + "?sortBy=name&first=1", eventsPath(id)} {
			w.do(http.MethodGet, read, "").is(http.StatusOK)
		}
		w.do(http.MethodGet, eventsPath(id), "", accepting(mediaLines)).is(http.StatusOK)
		w.do(http.MethodGet, path, "", publishable(myPublic)).is(http.StatusOK)
	}
	queue := w.openQueue(`,"admissionRate":60`)
	for _, c := range []string{"a", "b"} {
		consumer := as(w.session(c))
		w.do(http.MethodPost, queue+"/enter", "", consumer).is(http.StatusOK)
		w.advance(time.Minute)
		w.do(http.MethodGet, queue+"/status", "", consumer).is(http.StatusOK)
	}
	w.do(http.MethodPost, queue+"/admit", naming("a")).is(http.StatusOK)
	w.do(http.MethodPost, queue+"/leave", "", acting("b")).is(http.StatusOK)
	w.do(http.MethodGet, queue+"/stats", "").is(http.StatusOK)
	w.do(http.MethodPost, queue+"/open", "").refuses(http.StatusConflict, "Invalid status transition")
	w.newKey(`{"level":"secret"}`)
	for _, read := range []string{keysAt, keysAt + "?first=1", "/api/v1/organization", keySetAt, "/livez", "/readyz"} {
		w.do(http.MethodGet, read, "").is(http.StatusOK)
	}
	if answers < 40 {
		t.Errorf("only %d answers were looked at", answers)
	}
}

// Two organizations cannot compare their positions: each gets another token for the same
// position, and neither may use the other's token.
func TestPosition_isItsOrganizationsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`).is(http.StatusCreated)
	position := header("X-Position", made.Header().Get("X-Position"))
	w.do(http.MethodGet, "/api/v1/queues", "", position).is(http.StatusOK)
	w.do(http.MethodGet, "/api/v1/queues", "", position, key(mySecond)).is(http.StatusOK)
	w.do(http.MethodGet, made.Header().Get("Location"), "", position, publishable(myPublic)).is(http.StatusOK)
	w.do(http.MethodGet, "/api/v1/queues", "", position, key(otherKey)).blames("X-Position")

	s := newServer(w.config)
	mine, theirs := s.formatPosition(w.mine, domain.Position{Commit: 7, Prepare: 7}), s.formatPosition(w.other, domain.Position{Commit: 7, Prepare: 7})
	for i := range len(mine) - 7 {
		if strings.Contains(theirs, mine[i:i+8]) {
			t.Errorf("%s and %s have %s in common", mine, theirs, mine[i:i+8])
		}
	}
}

// All tokens have the same length, and the tokens of neighbouring positions are not alike.
func TestPosition_neighboursLookUnlike(t *testing.T) {
	t.Parallel()
	s := newServer(newWorld(t).config)
	seen := map[string]domain.Position{}
	for _, n := range []uint64{0, 1, 2, 255, 256, 257, 1 << 32, math.MaxInt64, math.MaxUint64} {
		for _, p := range []domain.Position{{Commit: n, Prepare: n}, {Commit: n, Prepare: n / 2}} {
			token := s.formatPosition("org_1", p)
			if len(token) != 43 {
				t.Errorf("%v has %d characters", p, len(token))
			}
			for i := range len(token) - 7 {
				if other, ok := seen[token[i:i+8]]; ok && other != p {
					t.Fatalf("%v and %v have %s in common", p, other, token[i:i+8])
				}
				seen[token[i:i+8]] = p
			}
			if again := s.formatPosition("org_1", p); again != token {
				t.Errorf("%v is %s, then %s", p, token, again)
			}
			if got, ok := s.parsePosition("org_1", token); !ok || got != p {
				t.Errorf("%v came back as %v, %t", p, got, ok)
			}
		}
	}
}

// During an upgrade, engines of several versions share one log. Each accepts the positions of
// the others.
func TestPosition_isAcceptedByEveryVersion(t *testing.T) {
	t.Parallel()
	s := newServer(Config{TokenKey: make([]byte, 32)})
	const want = "iYBpEEtLjCuMyW7qOWIUWxu0EslXK5zZ1vp1jWQ5Sl4"
	if got := s.formatPosition("org_01h455vb4pex5vsknk084sn02r", domain.Position{Commit: 1138, Prepare: 1138}); got != want {
		t.Errorf("got %s", got)
	}
}

// Every answer to a write has a position.
func BenchmarkPosition(b *testing.B) {
	s := newServer(newWorld(b).config)
	organization := domain.ID("org_01m8ns3vyzecev6h6d8c04stb5")
	token := s.formatPosition(organization, domain.Position{Commit: 7, Prepare: 7})
	b.Run("format", func(b *testing.B) {
		b.ReportAllocs()
		for n := uint64(0); b.Loop(); n++ {
			s.formatPosition(organization, domain.Position{Commit: n, Prepare: n})
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := s.parsePosition(organization, token); !ok {
				b.Fatal("it was not given out")
			}
		}
	})
}
