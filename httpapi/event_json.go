package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"github.com/lotline/lotline/domain"
)

// appendEvent appends an event as JSON. Its data and metadata are the stored bytes, because
// the hashes are computed from these.
func (s *server) appendEvent(dst []byte, organization domain.ID, e historyEvent) []byte {
	head := encode(eventHead{
		ID:            domain.NewID("evt", e.ID),
		Type:          e.Type,
		SchemaVersion: e.Metadata.SchemaVersion,
		Revision:      e.Revision,
		Position:      s.formatPosition(organization, e.Position),
		RecordedAt:    domain.InstantOf(e.RecordedAt).String(),
	})
	dst = append(dst, head[:len(head)-1]...)
	dst = appendStored(dst, "data", e.Data)
	metadata := e.RawMetadata
	if _, hash, ok := domain.SplitHash(metadata); ok {
		metadata = make([]byte, 0, len(e.RawMetadata)+len(e.previous)+len(hash))
		metadata = append(metadata, e.RawMetadata[:len(e.RawMetadata)-1]...)
		metadata = append(metadata, `,"prevHash":"`+e.previous+`"}`...)
	}
	dst = appendStored(dst, "metadata", metadata)
	if e.broken != nil {
		dst = append(dst, `,"problem":`...)
		dst = append(dst, encode(eventProblem{e.broken.Rule, e.broken.Detail})...)
	}
	return append(dst, '}')
}

// eventHead has the members of an event before data and metadata.
type eventHead struct {
	ID            domain.ID       `json:"id"`
	Type          string          `json:"type"`
	SchemaVersion int             `json:"schemaVersion"`
	Revision      domain.Revision `json:"revision"`
	Position      string          `json:"position"`   // in the form of X-Position
	RecordedAt    string          `json:"recordedAt"` // by the store's clock, which may have been wrong
}

// eventProblem says which rule an event breaks, for which its stream is in quarantine.
type eventProblem struct {
	Rule   string `json:"rule"`
	Detail string `json:"detail"`
}

// appendStored appends a member with stored bytes, unchanged. The bytes may be anything,
// because other programs can append to the store. If they are not a JSON text on one line,
// the member is null, and a second member, whose name ends in Base64, has the bytes.
func appendStored(dst []byte, name string, stored []byte) []byte {
	dst = append(dst, `,"`+name+`":`...)
	if oneLine(stored) {
		return append(dst, stored...)
	}
	dst = append(dst, `null,"`+name+`Base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, stored)
	return append(dst, '"')
}

// oneLine reports whether b is a JSON text without line breaks.
func oneLine(b []byte) bool {
	for _, c := range b {
		if c == '\n' || c == '\r' {
			return false
		}
	}
	return json.Valid(b) && utf8.Valid(b)
}
