package embedded

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Clients tell errors apart by the trailer "exception". The trailers beside it hold the
// details.
const trailerException = "exception"

// statusError is a gRPC error with the trailers that explain it.
type statusError struct {
	*status.Status
	trailer metadata.MD
}

func (e *statusError) Error() string              { return e.Err().Error() }
func (e *statusError) GRPCStatus() *status.Status { return e.Status }

// printable escapes the bytes that a trailer cannot hold. Stream names may contain any
// bytes.
func printable(name string) string {
	var escaped strings.Builder
	for _, b := range []byte(name) {
		if b < ' ' || b > '~' {
			fmt.Fprintf(&escaped, "%%%02X", b)
		} else {
			escaped.WriteByte(b)
		}
	}
	return escaped.String()
}

func deletedStatus(stream string) error {
	return &statusError{
		status.Newf(codes.FailedPrecondition, "Event stream '%s' is deleted.", stream),
		metadata.Pairs(trailerException, "stream-deleted", "stream-name", printable(stream)),
	}
}

func revisionStatus(operation string, e *revisionError) error {
	return &statusError{
		status.Newf(codes.FailedPrecondition, "%s failed due to WrongExpectedVersion. Stream: %s, Expected version: %d, Actual version: %d",
			operation, e.stream, e.expected, e.actual),
		metadata.Pairs(trailerException, "wrong-expected-version", "stream-name", printable(e.stream),
			"expected-version", strconv.FormatInt(int64(e.expected), 10),
			"actual-version", strconv.FormatInt(e.actual, 10)),
	}
}

func accessDenied() error {
	return &statusError{status.New(codes.PermissionDenied, "Access Denied"), metadata.Pairs(trailerException, "access-denied")}
}

func tooLargeStatus() error {
	return &statusError{
		status.Newf(codes.InvalidArgument, "Maximum Append Size of %d Exceeded.", maxAppendBytes),
		metadata.Pairs(trailerException, "maximum-append-size-exceeded", "maximum-append-size", strconv.Itoa(maxAppendBytes)),
	}
}

func missingProperty(name string) error {
	return &statusError{
		status.Newf(codes.InvalidArgument, "Required Metadata Property '%s' is missing", name),
		metadata.Pairs(trailerException, "missing-required-metadata-property",
			"required-metadata-properties", metadataKeyType+","+metadataKeyContentType),
	}
}

func closingStatus() error {
	return status.Error(codes.Unavailable, "the event store is shutting down")
}

// toStatus converts the error of a call to a gRPC error.
func toStatus(err error) error {
	if deleted, ok := errors.AsType[*deletedError](err); ok {
		return deletedStatus(deleted.stream)
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	case errors.Is(err, errClosed):
		return closingStatus()
	case errors.Is(err, errFull):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.NOTADB):
		return status.Error(codes.DataLoss, err.Error())
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}

// sendTrailers is an interceptor that sends the trailers of errors, so that no handler
// can forget them.
func sendTrailers(server any, call grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	err := handle(server, call)
	if explained, ok := errors.AsType[*statusError](err); ok {
		call.SetTrailer(explained.trailer)
	}
	return err
}
