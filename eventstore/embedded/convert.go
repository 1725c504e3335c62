package embedded

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	metadataKeyType        = "type"
	metadataKeyContentType = "content-type"
	metadataKeyCreated     = "created"

	contentTypeJSON  = "application/json"
	contentTypeBytes = "application/octet-stream"

	maxStreamName = 64 << 10

	// allStream is the name of the whole log.
	allStream = "$all"
)

func streamName(identifier *shared.StreamIdentifier) (string, error) {
	name := identifier.GetStreamName()
	switch {
	case len(name) == 0:
		return "", status.Error(codes.InvalidArgument, "the stream has no name")
	case len(name) > maxStreamName:
		return "", status.Errorf(codes.InvalidArgument, "the stream's name is longer than %d bytes", maxStreamName)
	case !utf8.Valid(name):
		return "", status.Error(codes.InvalidArgument, "the stream's name is not UTF-8")
	case string(name) == metadataPrefix:
		return "", status.Error(codes.InvalidArgument, "the stream's name is $$ without the name of a stream")
	}
	return string(name), nil
}

// writableStream returns the name of a stream that clients may append to and delete.
func writableStream(identifier *shared.StreamIdentifier) (string, error) {
	name, err := streamName(identifier)
	if err == nil && name == allStream {
		err = accessDenied()
	}
	return name, err
}

// clamp limits revisions and positions to the range of SQLite's integers. Clients send
// the highest number to say "to the end".
func clamp(value uint64) int64 {
	return int64(min(value, math.MaxInt64))
}

// positionMessage is what the position messages of all calls have in common.
type positionMessage interface {
	GetCommitPosition() uint64
	GetPreparePosition() uint64
}

// positionOf reads a position. In this store the commit and the prepare position of an
// event are the same number.
func positionOf(message positionMessage) (int64, error) {
	if commit, prepare := message.GetCommitPosition(), message.GetPreparePosition(); commit != prepare {
		return 0, status.Errorf(codes.InvalidArgument, "the position is not one of this event store: its commit and prepare position are %d and %d, and must be the same", commit, prepare)
	}
	return clamp(message.GetCommitPosition()), nil
}

func proposedEvent(id *shared.UUID, system map[string]string, data, metadata []byte) (proposed, error) {
	parsed, err := parseUUID(id)
	if err != nil {
		return proposed{}, status.Errorf(codes.InvalidArgument, "the event's id is not valid: %v", err)
	}
	if parsed == uuid.Nil {
		return proposed{}, status.Error(codes.InvalidArgument, "the event has no id")
	}
	kind, hasType := system[metadataKeyType]
	contentType, hasContentType := system[metadataKeyContentType]
	switch {
	case !hasType:
		return proposed{}, missingProperty(metadataKeyType)
	case !hasContentType:
		return proposed{}, missingProperty(metadataKeyContentType)
	case kind == "":
		return proposed{}, status.Error(codes.InvalidArgument, "the event has an empty type")
	}
	return proposed{id: parsed, kind: kind, json: contentType == contentTypeJSON, data: data, metadata: metadata}, nil
}

func parseUUID(id *shared.UUID) (uuid.UUID, error) {
	if structured := id.GetStructured(); structured != nil {
		var parsed uuid.UUID
		binary.BigEndian.PutUint64(parsed[:8], uint64(structured.GetMostSignificantBits()))
		binary.BigEndian.PutUint64(parsed[8:], uint64(structured.GetLeastSignificantBits()))
		return parsed, nil
	}
	return uuid.Parse(id.GetString_())
}

func structuredUUID(id uuid.UUID) *shared.UUID {
	return &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{
		MostSignificantBits:  int64(binary.BigEndian.Uint64(id[:8])),
		LeastSignificantBits: int64(binary.BigEndian.Uint64(id[8:])),
	}}}
}

func stringUUID(id uuid.UUID) *shared.UUID {
	return &shared.UUID{Value: &shared.UUID_String_{String_: id.String()}}
}

func systemMetadata(e *recorded) map[string]string {
	return map[string]string{
		metadataKeyType:        e.kind,
		metadataKeyContentType: e.contentType(),
		metadataKeyCreated:     e.createdText(),
	}
}
