package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// commandTimeout is how long a command may take. After that its outcome is unknown.
const commandTimeout = 5 * time.Second

// get answers with one distribution of a kind, or of any kind. With a secret key the
// answer is the admin's view, with a publishable key it is the public view.
func (s *server) get(k domain.Kind) handler {
	return func(x *exchange, r *http.Request) error {
		row, err := s.row(x, r, k)
		if err != nil {
			return err
		}
		tag, render := etag(row.Changed), row.JSON
		if x.level == domain.PublishableKey {
			// The public view is a different body, so it needs a different tag.
			tag = participationETag(row.Head.Revision)
			render = func() []byte { return row.Distribution.AppendPublicJSON(nil) }
		}
		x.jsonUnlessUnchanged(r, tag, render)
		return nil
	}
}

// row returns the distribution that the path names, of a kind or of any kind.
func (s *server) row(x *exchange, r *http.Request, k domain.Kind) (projections.Row, error) {
	id, err := pathID(r, k)
	if err != nil {
		return projections.Row{}, err
	}
	if err := s.awaitWrites(x, r); err != nil {
		return projections.Row{}, err
	}
	row, err := s.Views.Get(x.organization.ID, id)
	if errors.Is(err, projections.ErrNotFound) {
		return projections.Row{}, domain.Refuse(domain.NotFound(k), "")
	}
	return row, err
}

// jsonUnlessUnchanged answers with the object that render returns. If the client already
// has the version with this entity tag, it answers 304 Not Modified without a body.
func (x *exchange) jsonUnlessUnchanged(r *http.Request, tag string, render func() []byte) {
	x.set("Etag", tag)
	if unchanged(r, tag) {
		x.empty(http.StatusNotModified)
		return
	}
	x.json(r, http.StatusOK, typeJSON, render())
}

// create creates a distribution of a kind.
func (s *server) create(k domain.Kind) handler {
	return func(x *exchange, r *http.Request) error {
		fields, key, err := readRepeatable(x, r)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(r.Context(), commandTimeout, errNoAnswer)
		defer cancel()
		result, err := s.Commands.Create(ctx, commands.Creation{
			Kind:         k,
			Organization: x.organization.ID,
			Fields:       fields,
			Defaults: domain.Defaults{
				TimeZone:     x.organization.TimeZone,
				CurrencyCode: x.organization.CurrencyCode,
			},
			Caller:         x.caller(),
			IdempotencyKey: key,
		})
		s.acknowledge(x, result.Position)
		if err != nil {
			return err
		}
		d, err := distributionOf(result)
		if err != nil {
			return err
		}
		x.set("Location", basePath+collections[k]+"/"+string(d.Shared().ID))
		return s.answerWrite(x, r, http.StatusCreated, result)
	}
}

// update changes the fields of a distribution that the body names.
func (s *server) update(k domain.Kind) handler {
	return func(x *exchange, r *http.Request) error {
		return s.runFields(x, r, k, func(f domain.Fields) domain.Command { return domain.Update{Fields: f} })
	}
}

// remove deletes a distribution.
func (s *server) remove(k domain.Kind) handler {
	return func(x *exchange, r *http.Request) error {
		id, err := pathID(r, k)
		if err != nil {
			return err
		}
		_, err = s.runIfMatch(x, r, commands.Request{Stream: id.Stream(), Command: domain.Delete{}})
		if err != nil {
			return err
		}
		x.empty(http.StatusNoContent)
		return nil
	}
}

// step moves a distribution to its next status by hand.
func (s *server) step(k domain.Kind, to domain.Status) handler {
	read := withoutBody(func(*exchange) domain.Command { return domain.Step{To: to} })
	return s.carryOut(k, read, func(s *server, x *exchange, r *http.Request, result commands.Result) error {
		return s.answerWrite(x, r, http.StatusOK, result)
	})
}

// commandReader reads a command and its idempotency key from a request.
type commandReader func(x *exchange, r *http.Request) (domain.Command, commands.IdempotencyKey, error)

// resultWriter answers a request with the result of its command.
type resultWriter func(s *server, x *exchange, r *http.Request, result commands.Result) error

// carryOut carries out a command on the distribution that the path names.
func (s *server) carryOut(k domain.Kind, read commandReader, answer resultWriter) handler {
	return func(x *exchange, r *http.Request) error {
		id, err := pathID(r, k)
		if err != nil {
			return err
		}
		command, key, err := read(x, r)
		if err != nil {
			return err
		}
		result, err := s.run(x, r, commands.Request{Stream: id.Stream(), Command: command, IdempotencyKey: key})
		if err != nil {
			return err
		}
		return answer(s, x, r, result)
	}
}

// withoutBody reads a request without a body. command makes the command from the caller.
func withoutBody(command func(x *exchange) domain.Command) commandReader {
	return func(x *exchange, r *http.Request) (domain.Command, commands.IdempotencyKey, error) {
		key, err := idempotencyKey(x, r)
		if err != nil {
			return nil, commands.IdempotencyKey{}, err
		}
		b, err := readEmptyBody(x, r)
		if err != nil {
			return nil, commands.IdempotencyKey{}, err
		}
		return command(x), commandKey(key, b), nil
	}
}

// runFields carries out a command that changes the fields in the body, on the
// distribution that the path names. It answers with the distribution after the change.
func (s *server) runFields(x *exchange, r *http.Request, k domain.Kind, command func(domain.Fields) domain.Command) error {
	id, err := pathID(r, k)
	if err != nil {
		return err
	}
	fields, _, err := readFields(x, r)
	if err != nil {
		return err
	}
	result, err := s.runIfMatch(x, r, commands.Request{Stream: id.Stream(), Command: command(fields)})
	if err != nil {
		return err
	}
	return s.answerWrite(x, r, http.StatusOK, result)
}

// runIfMatch carries out a command if the object satisfies the request's If-Match and
// If-None-Match headers.
func (s *server) runIfMatch(x *exchange, r *http.Request, c commands.Request) (commands.Result, error) {
	var err error
	if c.IfMatch, c.IfNoneMatch, err = precondition(r); err != nil {
		return commands.Result{}, err
	}
	return s.run(x, r, c)
}

// run carries out a command for the authenticated caller.
func (s *server) run(x *exchange, r *http.Request, c commands.Request) (commands.Result, error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), commandTimeout, errNoAnswer)
	defer cancel()
	c.Organization, c.Caller = x.organization.ID, x.caller()
	result, err := s.Commands.Handle(ctx, c)
	// A refusal has a position as well: steps that were due may have been appended
	// before the command was refused.
	s.acknowledge(x, result.Position)
	id, _ := domain.StreamID(c.Stream)
	if _, broken := errors.AsType[*domain.HistoryError](err); broken && id.Kind().Distribution() {
		// A history that cannot be read does not say which organization owns it, but the
		// read model knows. A distribution of another organization must look like one
		// that does not exist.
		if _, known := s.Views.Get(c.Organization, id); errors.Is(known, projections.ErrNotFound) {
			return commands.Result{}, domain.Refuse(domain.NotFound(id.Kind()), "")
		}
	}
	return result, err
}

// answerWrite answers a write with the object's state after it. For a repeated creation
// that is the state right after the first one.
func (s *server) answerWrite(x *exchange, r *http.Request, status int, result commands.Result) error {
	object, ok := result.History.Aggregate.(interface{ AppendJSON(dst []byte) []byte })
	if !ok {
		return errors.New("a command on an object returned no object")
	}
	if result.Replayed {
		x.set("Idempotent-Replayed", "true")
	}
	x.set("Etag", etag(result.History.Changed))
	x.json(r, status, typeJSON, object.AppendJSON(nil))
	return nil
}

// distributionOf returns the distribution that a command changed or created.
func distributionOf(result commands.Result) (domain.Distribution, error) {
	d, ok := result.History.Aggregate.(domain.Distribution)
	if !ok {
		return nil, errors.New("a command on a distribution returned no distribution")
	}
	return d, nil
}

// caller returns the authenticated caller, as events record it.
func (x *exchange) caller() commands.Caller {
	if x.consumer != "" && x.level == domain.PublishableKey {
		return commands.Caller{Actor: domain.ActorConsumer, RequestID: x.requestID}
	}
	return commands.Caller{Actor: string(x.keyID), OnBehalfOf: x.consumer, RequestID: x.requestID}
}

// pathID returns the id in the path. It refuses an id of another kind than the path's as
// not found, even if a distribution with that id exists.
func pathID(r *http.Request, k domain.Kind) (domain.ID, error) {
	s := mux.Vars(r)["id"]
	kind := k
	if kind == anyKind {
		kind = domain.ID(s).Kind()
	}
	id, ok := domain.ParseID(kind.IDPrefix(), s)
	if !ok || !kind.Distribution() {
		return "", domain.Refuse(domain.NotFound(k), "")
	}
	return id, nil
}
