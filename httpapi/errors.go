package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// The refusals of this package. All others come from package domain.
const (
	invalidJSON            domain.Code = "Invalid JSON"
	consumerIDRequired     domain.Code = "Consumer ID is required"
	authenticationRequired domain.Code = "Authentication required"
	secretKeyRequired      domain.Code = "Secret key required"
	notFound               domain.Code = "Not found"
	methodNotAllowed       domain.Code = "Method not allowed"
	notAcceptable          domain.Code = "Not acceptable"
	requestTimeout         domain.Code = "Request timeout"
	contentTooLarge        domain.Code = "Content too large"
	unsupportedMediaType   domain.Code = "Unsupported media type"
	rateLimitExceeded      domain.Code = "Rate limit exceeded"
	internalError          domain.Code = "Internal error"
	readModelBehind        domain.Code = "Read model is behind"
)

// outcomeUnknown is the identifier of an error that takes the place of
// domain.EventStoreUnavailable's if events may have been written.
const outcomeUnknown = "OUTCOME_UNKNOWN"

// answer is how HTTP expresses a refusal: a status and, for some, one header, whose name
// is in canonical form.
type answer struct {
	status        int
	header, value string
}

// answers has the answer for every refusal.
var answers = func() map[domain.Code]answer {
	all := maps.Clone(commonRefusals)
	for _, k := range domain.Kinds() {
		all[domain.NotFound(k)] = answer{status: http.StatusNotFound}
		maps.Copy(all, kinds[k].refusals)
	}
	return all
}()

// commonRefusals are the answers for refusals that do not depend on a kind of distribution.
var commonRefusals = map[domain.Code]answer{
	domain.ValidationFailed: {status: http.StatusBadRequest},
	invalidJSON:             {status: http.StatusBadRequest},
	consumerIDRequired:      {status: http.StatusBadRequest},

	authenticationRequired: {http.StatusUnauthorized, "Www-Authenticate", "Bearer"},
	secretKeyRequired:      {http.StatusUnauthorized, "Www-Authenticate", "Bearer"},

	notFound:                    {status: http.StatusNotFound},
	domain.DistributionNotFound: {status: http.StatusNotFound},
	domain.OrganizationNotFound: {status: http.StatusNotFound},
	domain.KeyNotFound:          {status: http.StatusNotFound},

	methodNotAllowed: {status: http.StatusMethodNotAllowed}, // with Allow, which depends on the path
	notAcceptable:    {http.StatusNotAcceptable, "Accept", mediaJSON + ", " + mediaProblem},
	// The server must not wait for the rest of such a body, nor read it as the next
	// request.
	requestTimeout:       {http.StatusRequestTimeout, "Connection", "close"},
	contentTooLarge:      {http.StatusRequestEntityTooLarge, "Connection", "close"},
	unsupportedMediaType: {http.StatusUnsupportedMediaType, "Accept", mediaJSON},

	domain.UpdateClosed:      {status: http.StatusConflict},
	domain.UpdateOpen:        {status: http.StatusConflict},
	domain.DeleteActive:      {status: http.StatusConflict},
	domain.InvalidTransition: {status: http.StatusConflict},
	domain.NotPossible:       {status: http.StatusConflict},
	domain.ChangedByAnother:  {status: http.StatusConflict},

	domain.PreconditionFailed: {status: http.StatusPreconditionFailed},
	domain.IdempotencyReused:  {status: http.StatusUnprocessableEntity},

	rateLimitExceeded: {status: http.StatusTooManyRequests}, // with Retry-After, which depends on the caller

	internalError:                {status: http.StatusInternalServerError},
	domain.HistoryInconsistent:   {status: http.StatusInternalServerError},
	domain.EventStoreUnavailable: {http.StatusServiceUnavailable, "Retry-After", "1"},
	readModelBehind:              {http.StatusServiceUnavailable, "Retry-After", "1"},
}

// invalid refuses a request for the fields, parameters or headers in details.
func invalid(details ...domain.Detail) error {
	return &domain.Error{Code: domain.ValidationFailed, Details: details}
}

// errNoAnswer is the cause of a context that ends because the store took too long.
var errNoAnswer = fmt.Errorf("the store did not answer within %s: %w", commandTimeout, context.DeadlineExceeded)

// explain turns any error into the refusal and the error identifier for the client. fault
// reports whether the error is the engine's fault and not the client's. A request that only
// reads writes nothing, so its outcome is never unknown.
func explain(err error, reads bool) (refusal *domain.Error, identifier string, fault bool) {
	if refusal, ok := errors.AsType[*domain.Error](err); ok {
		if _, known := answers[refusal.Code]; known {
			return refusal, refusal.Code.Identifier(), false
		}
	}
	refusal = &domain.Error{Code: internalError}
	broken, isBroken := errors.AsType[*domain.HistoryError](err)
	away := errors.Is(err, domain.ErrUnavailable)
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	switch {
	case isBroken:
		refusal.Code = domain.HistoryInconsistent
		refusal.Message = fmt.Sprintf("revision %d: %s", broken.Revision, broken.Rule)
		if broken.Type != "" {
			refusal.Message = fmt.Sprintf("revision %d (%s): %s", broken.Revision, broken.Type, broken.Rule)
		}
	case !reads && (late && !away || errors.Is(err, domain.ErrOutcomeUnknown)): // ErrOutcomeUnknown may come together with ErrUnavailable
		refusal.Code = domain.EventStoreUnavailable
		refusal.Message = "it is not known whether the request was carried out; repeating it with the same Idempotency-Key is safe"
		return refusal, outcomeUnknown, true
	case late, away, errors.Is(err, commands.ErrClosed):
		refusal.Code = domain.EventStoreUnavailable
		if !reads {
			refusal.Message = "nothing was written"
		}
	case errors.Is(err, projections.ErrBehind):
		refusal.Code = readModelBehind
	}
	return refusal, refusal.Code.Identifier(), true
}

// failure is the body of every error answer.
type failure struct {
	Error     string          `json:"error"`
	Message   string          `json:"message,omitempty"`
	Details   []domain.Detail `json:"details,omitempty"`
	Code      string          `json:"code"`
	RequestID string          `json:"requestId"`
}

// problem is the same body with the members of RFC 9457.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Instance string `json:"instance"`
	failure
}

// fail answers with an error. It keeps an error that is the engine's fault for the log. If
// the answer has already begun, fail aborts it, because its status can no longer change.
func (x *exchange) fail(r *http.Request, err error) {
	refusal, identifier, fault := explain(err, r.Method == http.MethodGet || r.Method == http.MethodHead)
	// If the client gave up, its context is cancelled. That is no fault of ours.
	if fault && r.Context().Err() == nil {
		x.fault = err
	}
	if x.status != 0 {
		panic(http.ErrAbortHandler)
	}
	a := answers[refusal.Code]
	if a.header != "" {
		x.set(a.header, a.value)
	}
	if refusal.RetryAfter > 0 {
		// Whole seconds, rounded up: a client that repeats earlier is refused again.
		x.set("Retry-After", strconv.FormatInt(int64((refusal.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if refusal.OpensAt != 0 {
		x.set("X-Opens-At", refusal.OpensAt.String())
	}
	message, details := bounded(refusal)
	f := failure{string(refusal.Code), message, details, identifier, x.requestID}
	if !wantsProblem(r) {
		x.json(r, a.status, typeJSON, encode(f))
		return
	}
	x.json(r, a.status, typeProblem, encode(problem{
		Type:     "urn:lotline:problem:" + strings.ReplaceAll(strings.ToLower(identifier), "_", "-"),
		Title:    f.Error,
		Status:   a.status,
		Detail:   f.Message,
		Instance: r.URL.EscapedPath(),
		failure:  f,
	}))
}

// maxEchoed is how many bytes of a client's own name, such as a field's, an answer repeats.
const maxEchoed = 128

// bounded returns a refusal's message and details, cut to a size that does not grow with
// the request.
func bounded(refusal *domain.Error) (message string, details []domain.Detail) {
	message = refusal.Message
	listed := min(len(refusal.Details), domain.MaxDetails)
	for _, d := range refusal.Details[:listed] {
		details = append(details, domain.Detail{Field: truncate(d.Field), Message: d.Message})
	}
	if more := refusal.More + len(refusal.Details) - listed; more > 0 {
		message = strings.TrimPrefix(fmt.Sprintf("%s; %d more are wrong", message, more), "; ")
	}
	return message, details
}

// truncate cuts a client's own name to maxEchoed bytes, at a whole character.
func truncate(name string) string {
	if len(name) <= maxEchoed {
		return name
	}
	end := maxEchoed
	for !utf8.RuneStart(name[end]) && end > 0 {
		end--
	}
	return name[:end] + "…"
}

// encode returns v as JSON. v must be of a type that always encodes.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("an answer that cannot be encoded: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
