package embedded

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

const (
	metadataPrefix = "$$"
	metadataType   = "$metadata"
	tombstoneType  = "$streamDeleted"

	// deletedBefore is the value of $tb of a deleted stream.
	deletedBefore = math.MaxInt64
)

// limits says which events of a stream its metadata leaves visible. Zero values limit
// nothing.
type limits struct {
	before   int64 // first visible revision
	maxCount int64
	maxAge   int64 // seconds
}

// parseLimits reads the limits that it knows. As on a real server, metadata that is not a
// JSON object limits nothing.
func parseLimits(metadata []byte) limits {
	var fields struct {
		Before   int64 `json:"$tb"`
		MaxCount int64 `json:"$maxCount"`
		MaxAge   int64 `json:"$maxAge"`
	}
	if err := json.Unmarshal(metadata, &fields); err != nil {
		return limits{}
	}
	return limits{before: max(fields.Before, 0), maxCount: max(fields.MaxCount, 0), maxAge: max(fields.MaxAge, 0)}
}

// withTruncateBefore returns metadata with a new $tb and all else unchanged. Metadata
// that is not a JSON object is replaced.
func withTruncateBefore(metadata []byte, before int64) ([]byte, error) {
	fields := make(map[string]json.RawMessage)
	if err := json.Unmarshal(metadata, &fields); err != nil || fields == nil {
		fields = make(map[string]json.RawMessage)
	}
	fields["$tb"] = json.RawMessage(strconv.FormatInt(before, 10))
	return json.Marshal(fields)
}

// describedStream returns the stream that a metadata stream describes. It reports false for
// other streams.
func describedStream(stream string) (string, bool) {
	return strings.CutPrefix(stream, metadataPrefix)
}
