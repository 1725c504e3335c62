package embedded

import (
	"encoding/binary"
	"strconv"

	"github.com/google/uuid"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// encoded is a message that is already encoded as protobuf. Every event that a client
// reads is sent as one, because protobuf's general encoder takes as long as reading the
// event from the file.
type encoded []byte

// codec is gRPC's protobuf codec, except that it sends a value of type encoded unchanged.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(encoded); ok {
		return mem.BufferSlice{mem.SliceBuffer(m)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// eventEncoder encodes events as streams.ReadResp. It reuses its buffers, so it is for
// one call.
type eventEncoder struct {
	uuidAsText        bool
	event, link, part []byte
}

func (c *eventEncoder) encode(e *resolved) encoded {
	event, link := e.pair()
	c.event = c.appendRecorded(c.event[:0], event)
	c.link = c.appendRecorded(c.link[:0], link)
	position := uint64(e.position)
	size := sizePresent(1, len(c.event)) + sizePresent(2, len(c.link)) + sizeVarint(3, position)
	m := make(encoded, 0, sizeBytes(1, size))
	m = protowire.AppendTag(m, 1, protowire.BytesType) // ReadResp.event
	m = protowire.AppendVarint(m, uint64(size))
	m = appendPresent(m, 1, c.event)    // ReadEvent.event
	m = appendPresent(m, 2, c.link)     // ReadEvent.link
	return appendVarint(m, 3, position) // ReadEvent.commit_position
}

// appendRecorded appends the fields of a RecordedEvent, or nothing if e is nil.
func (c *eventEncoder) appendRecorded(b []byte, e *recorded) []byte {
	if e == nil {
		return b
	}
	c.part = appendUUID(c.part[:0], e.id, c.uuidAsText)
	b = appendBytes(b, 1, c.part)
	c.part = appendString(c.part[:0], 3, e.stream)
	b = appendBytes(b, 2, c.part)
	b = appendVarint(b, 3, uint64(e.revision))
	b = appendVarint(b, 4, uint64(e.position)) // prepare
	b = appendVarint(b, 5, uint64(e.position)) // commit
	b = c.appendMetadata(b, metadataKeyType, e.kind)
	b = c.appendMetadata(b, metadataKeyContentType, e.contentType())
	b = c.appendMetadata(b, metadataKeyCreated, e.createdText())
	b = appendBytes(b, 7, e.metadata)
	return appendBytes(b, 8, e.data)
}

// appendMetadata appends a key and its value to the map in field 6.
func (c *eventEncoder) appendMetadata(b []byte, key, value string) []byte {
	c.part = appendString(c.part[:0], 1, key)
	c.part = appendString(c.part, 2, value)
	return appendBytes(b, 6, c.part)
}

func appendUUID(b []byte, id uuid.UUID, asText bool) []byte {
	if asText {
		return appendString(b, 2, id.String())
	}
	most, least := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeVarint(1, most)+sizeVarint(2, least)))
	b = appendVarint(b, 1, most)
	return appendVarint(b, 2, least)
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func appendString(b []byte, field protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// appendPresent appends a message field. It omits a message of no bytes, which in this
// file means that there is none.
func appendPresent(b []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return appendBytes(b, field, v)
}

func sizePresent(field protowire.Number, n int) int {
	if n == 0 {
		return 0
	}
	return sizeBytes(field, n)
}

func sizeVarint(field protowire.Number, v uint64) int {
	return protowire.SizeTag(field) + protowire.SizeVarint(v)
}

func sizeBytes(field protowire.Number, n int) int {
	return protowire.SizeTag(field) + protowire.SizeBytes(n)
}

func (e *recorded) contentType() string {
	if e.json {
		return contentTypeJSON
	}
	return contentTypeBytes
}

// createdText returns the creation time as a decimal number. Clients end their process
// for anything else.
func (e *recorded) createdText() string { return strconv.FormatInt(e.created, 10) }
