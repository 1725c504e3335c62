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

	// deletedBefore is the value of $tb that says that a stream is deleted.
	deletedBefore = math.MaxInt64
)

// limits says which events of a stream its metadata still shows. Zero values
// limit nothing.
type limits struct {
	before   int64 // first revision shown
	maxCount int64
	maxAge   int64 // seconds
}

// parseLimits takes what it understands. Metadata that is no JSON object limits
// nothing, as on a real server.
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

// withTruncateBefore returns the metadata with another $tb and all else as it
// was. Metadata that is no JSON object is replaced.
func withTruncateBefore(metadata []byte, before int64) ([]byte, error) {
	fields := make(map[string]json.RawMessage)
	if err := json.Unmarshal(metadata, &fields); err != nil || fields == nil {
		fields = make(map[string]json.RawMessage)
	}
	fields["$tb"] = json.RawMessage(strconv.FormatInt(before, 10))
	return json.Marshal(fields)
}

// described is the stream whose metadata a stream holds.
func described(stream string) (string, bool) {
	return strings.CutPrefix(stream, metadataPrefix)
}
