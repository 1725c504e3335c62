package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/lotline/lotline/domain"
)

const (
	// maxBody is how many bytes the body of a request may have.
	maxBody = 1 << 20
	// maxNothing is how many bytes the body of a call that takes no body may have.
	maxNothing = 4 << 10
)

// body is a request's body as it came.
type body []byte

// hash is the SHA-256 of the body in lower-case hex.
func (b body) hash() string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// readBody reads the whole body of a request, which may have most bytes, and has to
// be JSON when there is one.
func readBody(x *exchange, r *http.Request, most int64) (body, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	wrongType := checkContentType(r.Header)
	// That it is too large is told first, and that it is none is not known yet when it
	// comes in pieces.
	if wrongType != nil && r.ContentLength > 0 && r.ContentLength <= most {
		return nil, wrongType
	}
	b, err := readBytes(x, r, most)
	if err != nil || len(b) == 0 {
		return nil, err // or it was sent in pieces, of which there were none
	}
	return b, wrongType
}

// readBytes reads the whole body of a request, whatever it is.
func readBytes(x *exchange, r *http.Request, most int64) ([]byte, error) {
	tooLarge := domain.Refuse(contentTooLarge, "a body may have at most %d bytes here", most)
	if r.ContentLength > most {
		return nil, tooLarge
	}
	// The connection's own writer, so that the server learns that it is not to
	// wait for the rest.
	b, err := io.ReadAll(http.MaxBytesReader(x.ResponseWriter, r.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, domain.Refuse(requestTimeout, "only %d bytes of the body came in time", len(b))
	}
	if err != nil {
		return nil, domain.Refuse(invalidJSON, "the body ended after %d bytes, before it was complete", len(b))
	}
	return b, nil
}

// takesNoBody reports whether HTTP gives the body of a request with this method no
// meaning.
func takesNoBody(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions:
		return true
	}
	return false
}

// skipBody reads past the body of a request whose method gives a body no meaning. It
// refuses one that is large or comes too slowly.
func skipBody(x *exchange, r *http.Request) error {
	_, err := readBytes(x, r, maxNothing)
	if refusal, ok := errors.AsType[*domain.Error](err); ok && refusal.Code == invalidJSON {
		return nil // it broke off, and nobody needs it
	}
	return err
}

func checkContentType(h http.Header) error {
	media, parameters, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || media != mediaJSON {
		return domain.Refuse(unsupportedMediaType, "a body has to be sent as Content-Type: application/json")
	}
	if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return domain.Refuse(unsupportedMediaType, "a body has to be in UTF-8")
	}
	if coding := h.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return domain.Refuse(unsupportedMediaType, "a body has to be sent without Content-Encoding")
	}
	return nil
}

// fields reads the body as one JSON object. Names are taken literally. Each name may
// be given once in its object: of two members with one name, this reader or the next
// would lose one without a word.
func (b body) fields() (domain.Fields, error) {
	if bad := invalidUTF8(b); bad >= 0 {
		return nil, malformed(bad, "is not UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(b, &whole); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, malformed(syntaxOffset(b, syntax), "%s", syntax)
		}
		return nil, err
	}
	if start := bytes.IndexFunc(b, notSpace); b[start] != '{' {
		return nil, malformed(start, "the body has to be an object")
	}
	return b.members()
}

// members splits a valid JSON object into its members. It goes through the text once,
// and looks for repeated names in the objects within as well.
func (b body) members() (domain.Fields, error) {
	type level struct {
		object  int  // its number, 0 for an array
		hasName bool // the name of the member that begins here has been read
	}
	type member struct {
		object int
		name   string
	}
	var (
		fields  = domain.Fields{}
		seen    = map[member]bool{} // the names in objects within
		levels  []level             // the objects and arrays that are open
		objects int                 // how many there were so far
		name    string              // of the body's member that is being read,
		value   int                 // and where its value begins
	)
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{':
			objects++
			levels = append(levels, level{object: objects})
			continue
		case '[':
			levels = append(levels, level{})
			continue
		}
		if len(levels) == 0 {
			continue // white space around the object
		}
		top := &levels[len(levels)-1]
		body := len(levels) == 1
		switch b[i] {
		case '"':
			end := stringEnd(b, i)
			if top.object != 0 && !top.hasName {
				text := unquote(b[i:end])
				var twice bool
				if body {
					_, twice = fields[text]
					fields[text], name = nil, text
				} else {
					m := member{top.object, text}
					twice, seen[m] = seen[m], true
				}
				if twice {
					return nil, malformed(end, "%q is given twice", brief(text))
				}
				top.hasName = true
			}
			i = end - 1
		case ':':
			if body {
				value = i + 1
			}
		case ',', '}', ']':
			if body && top.hasName {
				fields[name] = json.RawMessage(bytes.Trim(b[value:i], " \t\r\n"))
			}
			top.hasName = false
			if b[i] != ',' {
				levels = levels[:len(levels)-1]
			}
		}
	}
	return fields, nil
}

// stringEnd is where the JSON string ends that begins at start.
func stringEnd(b []byte, start int) int {
	for i := start + 1; ; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// unquote is the text of a valid JSON string.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is valid
	return s
}

// malformed refuses a body for what stands at a byte offset, counted from 0.
func malformed(offset int, format string, args ...any) error {
	return domain.Refuse(invalidJSON, "at byte %d: "+format, append([]any{offset}, args...)...)
}

// syntaxOffset is where the byte stands that does not fit. The error counts the
// bytes that were read, that one included unless there was none.
func syntaxOffset(b body, e *json.SyntaxError) int {
	if strings.HasPrefix(e.Error(), "unexpected end") {
		return len(b)
	}
	return max(int(e.Offset)-1, 0)
}

func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

func notSpace(r rune) bool { return !strings.ContainsRune(" \t\r\n", r) }

// readFields reads a body that has to be an object.
func readFields(x *exchange, r *http.Request) (domain.Fields, body, error) {
	b, err := readBody(x, r, maxBody)
	if err != nil {
		return nil, nil, err
	}
	fields, err := b.fields()
	return fields, b, err
}

// readNothing reads the body of a call that takes none. An object without
// fields says nothing either.
func readNothing(x *exchange, r *http.Request) (body, error) {
	b, err := readBody(x, r, maxNothing)
	if err != nil || len(b) == 0 {
		return b, err
	}
	fields, err := b.fields()
	if err != nil {
		return nil, err
	}
	if err := domain.ReadNothing(fields); err != nil {
		return nil, err
	}
	return b, nil
}
