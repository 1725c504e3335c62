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
	// maxBody is the largest size of a request's body, in bytes.
	maxBody = 1 << 20
	// maxEmptyBody is the largest size of the body of a call that takes no fields, in
	// bytes.
	maxEmptyBody = 4 << 10
)

// body holds the bytes of a request's body, as the client sent them.
type body []byte

// hash returns the SHA-256 of the body in lower-case hex.
func (b body) hash() string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// readBody reads the whole body of a request. It returns nil if there is none. It
// refuses a body of more than limit bytes, and a body that is not declared as JSON.
func readBody(x *exchange, r *http.Request, limit int64) (body, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	wrongType := checkContentType(r.Header)
	// A body that is too large is refused for its size first. A chunked body has no
	// known length, so it has to be read: it may turn out to be empty.
	if wrongType != nil && r.ContentLength > 0 && r.ContentLength <= limit {
		return nil, wrongType
	}
	b, err := readBytes(x, r, limit)
	if err != nil || len(b) == 0 {
		return nil, err // nil for a chunked body without chunks
	}
	return b, wrongType
}

// readBytes reads the whole body of a request of any content type. It refuses a body
// of more than limit bytes, and one that does not arrive completely or in time.
func readBytes(x *exchange, r *http.Request, limit int64) ([]byte, error) {
	tooLarge := domain.Refuse(contentTooLarge, "a body may have at most %d bytes here", limit)
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	// MaxBytesReader gets the connection's own writer. Through it, it tells the server
	// not to wait for the rest of the body.
	b, err := io.ReadAll(http.MaxBytesReader(x.ResponseWriter, r.Body, limit))
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
	_, err := readBytes(x, r, maxEmptyBody)
	if refusal, ok := errors.AsType[*domain.Error](err); ok && refusal.Code == invalidJSON {
		return nil // the body broke off, but nothing in it was needed
	}
	return err
}

// checkContentType refuses the headers of a body that is not plain JSON in UTF-8.
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

// fields reads the body as one JSON object. Names are case-sensitive. A name that
// appears twice in one object is refused, at every depth: JSON readers silently keep
// only one of the two members, and not all keep the same one.
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

// members splits a valid JSON object into its members. It reads the text once, and also
// checks nested objects for repeated names.
func (b body) members() (domain.Fields, error) {
	type level struct {
		object  int  // the number of the object, 0 for an array
		hasName bool // whether the current member's name has been read
	}
	type member struct {
		object int
		name   string
	}
	var (
		fields  = domain.Fields{}
		seen    = map[member]bool{} // the names in nested objects
		levels  []level             // the objects and arrays that are open
		objects int                 // the number of objects so far
		name    string              // the name of the body's current member
		value   int                 // the offset of that member's value
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
				var repeated bool
				if body {
					_, repeated = fields[text]
					fields[text], name = nil, text
				} else {
					m := member{top.object, text}
					repeated, seen[m] = seen[m], true
				}
				if repeated {
					return nil, malformed(end, "%q is given twice", truncate(text))
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

// stringEnd returns the offset behind the JSON string that begins at start.
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

// unquote returns the text of a valid JSON string.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // cannot fail: the string is valid
	return s
}

// malformed refuses a body for a mistake at a byte offset, counted from 0.
func malformed(offset int, format string, args ...any) error {
	return domain.Refuse(invalidJSON, "at byte %d: "+format, append([]any{offset}, args...)...)
}

// syntaxOffset returns the offset of the byte that the JSON decoder did not expect, or
// the length of the body if it ended too early. The decoder's own offset counts the bytes
// up to and including the unexpected byte.
func syntaxOffset(b body, e *json.SyntaxError) int {
	if strings.HasPrefix(e.Error(), "unexpected end") {
		return len(b)
	}
	return max(int(e.Offset)-1, 0)
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
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

// notSpace reports whether r is not JSON white space.
func notSpace(r rune) bool { return !strings.ContainsRune(" \t\r\n", r) }

// readFields reads a body that must be a JSON object. It also returns the body's bytes.
func readFields(x *exchange, r *http.Request) (domain.Fields, body, error) {
	b, err := readBody(x, r, maxBody)
	if err != nil {
		return nil, nil, err
	}
	fields, err := b.fields()
	return fields, b, err
}

// readEmptyBody reads the body of a call that takes no fields. The body may be missing
// or an object without fields.
func readEmptyBody(x *exchange, r *http.Request) (body, error) {
	b, err := readBody(x, r, maxEmptyBody)
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
