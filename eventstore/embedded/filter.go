package embedded

import (
	"bytes"
	"regexp"

	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// filter selects events of the whole log by stream name or by type.
type filter struct {
	byType   bool
	prefixes [][]byte
	pattern  *regexp.Regexp // nil if prefixes decide
}

func newFilter(options *streamspb.ReadReq_Options_FilterOptions) (*filter, error) {
	var f filter
	var expression *streamspb.ReadReq_Options_FilterOptions_Expression
	switch by := options.GetFilter().(type) {
	case *streamspb.ReadReq_Options_FilterOptions_StreamIdentifier:
		expression = by.StreamIdentifier
	case *streamspb.ReadReq_Options_FilterOptions_EventType:
		f.byType, expression = true, by.EventType
	}
	if expression.GetRegex() == "" && len(expression.GetPrefix()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the filter has neither prefixes nor a regular expression")
	}
	if expression.GetRegex() != "" && len(expression.GetPrefix()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "the filter has both prefixes and a regular expression: it may have one of them")
	}
	if expression.GetRegex() != "" {
		pattern, err := regexp.Compile(expression.GetRegex())
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "the filter's regular expression is not valid: %v", err)
		}
		f.pattern = pattern
		return &f, nil
	}
	for _, prefix := range expression.GetPrefix() {
		f.prefixes = append(f.prefixes, []byte(prefix))
	}
	return &f, nil
}

func (f *filter) matches(stream, kind []byte) bool {
	subject := stream
	if f.byType {
		subject = kind
	}
	if f.pattern != nil {
		return f.pattern.Match(subject)
	}
	for _, prefix := range f.prefixes {
		if bytes.HasPrefix(subject, prefix) {
			return true
		}
	}
	return false
}

// checkpointInterval returns after how many considered events a filtered subscription is
// sent its position. Without that a subscriber whose filter matches few events would not
// learn how far the log was read.
func checkpointInterval(options *streamspb.ReadReq_Options_FilterOptions) (int64, error) {
	// The default of a real server for clients that set no window.
	const defaultWindow = 32
	window := int64(options.GetMax())
	if window == 0 {
		window = defaultWindow
	}
	multiplier := int64(options.GetCheckpointIntervalMultiplier())
	if multiplier == 0 {
		return 0, status.Error(codes.InvalidArgument, "the checkpoint interval multiplier must be greater than 0")
	}
	return window * multiplier, nil
}
