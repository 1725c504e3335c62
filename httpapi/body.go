package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/lotline/lotline/domain"
)

// maxBody is how many bytes a request's body may have.
const maxBody = 1 << 20

// body is a request's body as it came.
type body []byte

// hash is the SHA-256 of the body in lower-case hex.
func (b body) hash() string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// readBody reads the whole body of a request, which has to be JSON when there is
// one.
func readBody(x *exchange, r *http.Request) (body, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	wrongType := checkContentType(r.Header)
	if r.ContentLength > 0 && wrongType != nil {
		return nil, wrongType
	}
	tooLarge := domain.Refuse(contentTooLarge, "a body may have at most %d bytes", maxBody)
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	// The connection's own writer, so that the server learns that it is not to
	// wait for the rest.
	b, err := io.ReadAll(http.MaxBytesReader(x.ResponseWriter, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge
	}
	if err != nil {
		return nil, domain.Refuse(invalidJSON, "the body ended after %d bytes, before it was complete", len(b))
	}
	if len(b) == 0 {
		return nil, nil // it was sent in pieces, of which there were none
	}
	return b, wrongType
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

// fields reads the body as one JSON object. Names are taken literally, and each
// may be given once in its object: of two, one would be lost without a word, here
// or with whoever reads it next.
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
	d := json.NewDecoder(bytes.NewReader(b))
	start, err := d.Token()
	if err != nil {
		return nil, err
	}
	if start != json.Delim('{') {
		return nil, malformed(bytes.IndexFunc(b, notSpace), "the body has to be an object")
	}
	fields := domain.Fields{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		end := int(d.InputOffset())
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		if _, twice := fields[name.(string)]; twice {
			return nil, malformed(end, "%q is given twice", name)
		}
		if again, at := repeatedName(value); at >= 0 {
			return nil, malformed(int(d.InputOffset())-len(value)+at, "%q is given twice", again)
		}
		fields[name.(string)] = value
	}
	return fields, nil
}

// repeatedName finds a name that an object in a valid JSON text has twice, and the
// end of the second one, or -1.
func repeatedName(raw json.RawMessage) (name string, end int) {
	if raw[0] != '{' && raw[0] != '[' {
		return "", -1
	}
	type level struct {
		names  map[string]bool // nil in an array
		inName bool            // a name comes next, unless the object ends
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var levels []level
	for {
		token, err := d.Token()
		if err != nil {
			return "", -1 // the end
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{map[string]bool{}, true})
			continue
		case json.Delim('['):
			levels = append(levels, level{})
			continue
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
		}
		if len(levels) == 0 {
			continue
		}
		top := &levels[len(levels)-1]
		if !top.inName {
			top.inName = top.names != nil
			continue
		}
		name = token.(string)
		if top.names[name] {
			return name, int(d.InputOffset())
		}
		top.names[name], top.inName = true, false
	}
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
	b, err := readBody(x, r)
	if err != nil {
		return nil, nil, err
	}
	fields, err := b.fields()
	return fields, b, err
}

// readNothing reads the body of a call that takes none. An object without
// fields says nothing either.
func readNothing(x *exchange, r *http.Request) (body, error) {
	b, err := readBody(x, r)
	if err != nil || len(b) == 0 {
		return b, err
	}
	fields, err := b.fields()
	if err != nil {
		return nil, err
	}
	if wrong := unknownFields(fields, ""); len(wrong) > 0 {
		return nil, invalid(wrong...)
	}
	return b, nil
}

// unknownFields names the fields beside those that are known.
func unknownFields(given domain.Fields, known ...string) []domain.Detail {
	var wrong []domain.Detail
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(known, name) {
			wrong = append(wrong, domain.Detail{Field: name, Message: "is not a field of this request"})
		}
	}
	return wrong
}
