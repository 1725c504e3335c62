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

// commandTimeout is how long a command may take. Then its outcome is unknown.
const commandTimeout = 5 * time.Second

// get answers with one distribution of a kind, or of any: as an admin sees it or,
// with a publishable key, as everybody may.
func (s *server) get(k domain.Kind) handler {
	return func(x *exchange, r *http.Request) error {
		row, err := s.row(x, r, k)
		if err != nil {
			return err
		}
		tag, render := etag(row.Changed), row.JSON
		if x.level == domain.PublishableKey {
			// Another body needs another tag.
			tag = participationETag(row.Head.Revision)
			render = func() []byte { return row.Distribution.AppendPublicJSON(nil) }
		}
		x.version(r, tag, render)
		return nil
	}
}

// row is the distribution in the path, of a kind or of any.
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

// version answers with an object, or that the client has this version of it.
func (x *exchange) version(r *http.Request, tag string, render func() []byte) {
	x.set("Etag", tag)
	if unchanged(r, tag) {
		x.empty(http.StatusNotModified)
		return
	}
	x.json(r, http.StatusOK, typeJSON, render())
}

// create makes a distribution of a kind.
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
		d, err := made(result)
		if err != nil {
			return err
		}
		x.set("Location", basePath+collections[k]+"/"+string(d.Shared().ID))
		return s.written(x, r, http.StatusCreated, result)
	}
}

// update changes the fields that the body names.
func (s *server) update(k domain.Kind) handler {
	return func(x *exchange, r *http.Request) error {
		id, err := pathID(r, k)
		if err != nil {
			return err
		}
		fields, _, err := readFields(x, r)
		if err != nil {
			return err
		}
		result, err := s.runIfMatch(x, r, commands.Request{Stream: id.Stream(), Command: domain.Update{Fields: fields}})
		if err != nil {
			return err
		}
		return s.written(x, r, http.StatusOK, result)
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

// step takes the next step of the lifecycle by hand.
func (s *server) step(k domain.Kind, to domain.Status) handler {
	read := withoutBody(func(*exchange) domain.Command { return domain.Step{To: to} })
	return s.carryOut(k, read, func(s *server, x *exchange, r *http.Request, result commands.Result) error {
		return s.written(x, r, http.StatusOK, result)
	})
}

// commandReader reads a command, and what makes it repeatable, from a request.
type commandReader func(x *exchange, r *http.Request) (domain.Command, commands.IdempotencyKey, error)

// answering answers a request with the result of its command.
type answering func(s *server, x *exchange, r *http.Request, result commands.Result) error

// carryOut carries out a command on the distribution in the path.
func (s *server) carryOut(k domain.Kind, read commandReader, answer answering) handler {
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

// withoutBody makes the command of a request that has no body.
func withoutBody(command func(x *exchange) domain.Command) commandReader {
	return func(x *exchange, r *http.Request) (domain.Command, commands.IdempotencyKey, error) {
		key, err := idempotencyKey(x, r)
		if err != nil {
			return nil, commands.IdempotencyKey{}, err
		}
		b, err := readNothing(x, r)
		if err != nil {
			return nil, commands.IdempotencyKey{}, err
		}
		return command(x), commandKey(key, b), nil
	}
}

// supplyEntropy gives a draw what its entropy source published.
func (s *server) supplyEntropy(x *exchange, r *http.Request) error {
	id, err := pathID(r, domain.KindDraw)
	if err != nil {
		return err
	}
	fields, _, err := readFields(x, r)
	if err != nil {
		return err
	}
	result, err := s.runIfMatch(x, r, commands.Request{Stream: id.Stream(), Command: domain.SupplyEntropy{Fields: fields}})
	if err != nil {
		return err
	}
	return s.written(x, r, http.StatusOK, result)
}

// runIfMatch carries out a command on an object that is as If-Match and If-None-Match
// say.
func (s *server) runIfMatch(x *exchange, r *http.Request, c commands.Request) (commands.Result, error) {
	var err error
	if c.IfMatch, c.IfNoneMatch, err = precondition(r); err != nil {
		return commands.Result{}, err
	}
	return s.run(x, r, c)
}

// run carries out a command for whoever is authenticated.
func (s *server) run(x *exchange, r *http.Request, c commands.Request) (commands.Result, error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), commandTimeout, errNoAnswer)
	defer cancel()
	c.Organization, c.Caller = x.organization.ID, x.caller()
	result, err := s.Commands.Handle(ctx, c)
	// A refusal may rest on steps that came due and stand in the log now.
	s.acknowledge(x, result.Position)
	id, _ := domain.StreamID(c.Stream)
	if _, broken := errors.AsType[*domain.HistoryError](err); broken && id.Kind().Distribution() {
		// A history that cannot be read does not say whose it is. The read model
		// knows, and what is another's must not be told from what is not there.
		if _, known := s.Views.Get(c.Organization, id); errors.Is(known, projections.ErrNotFound) {
			return commands.Result{}, domain.Refuse(domain.NotFound(id.Kind()), "")
		}
	}
	return result, err
}

// written answers a write with the object as it is now or, for a repeated
// creation, as it was then.
func (s *server) written(x *exchange, r *http.Request, status int, result commands.Result) error {
	object, ok := result.History.Aggregate.(interface{ AppendJSON(dst []byte) []byte })
	if !ok {
		return errors.New("a command for an object left none behind")
	}
	if result.Replayed {
		x.set("Idempotent-Replayed", "true")
	}
	x.set("Etag", etag(result.History.Changed))
	x.json(r, status, typeJSON, object.AppendJSON(nil))
	return nil
}

// made is the distribution that a command left behind.
func made(result commands.Result) (domain.Distribution, error) {
	d, ok := result.History.Aggregate.(domain.Distribution)
	if !ok {
		return nil, errors.New("a command for a distribution left none behind")
	}
	return d, nil
}

func (x *exchange) caller() commands.Caller {
	if x.consumer != "" && x.level == domain.PublishableKey {
		return commands.Caller{Actor: domain.ActorConsumer, RequestID: x.requestID}
	}
	return commands.Caller{Actor: string(x.keyID), OnBehalfOf: x.consumer, RequestID: x.requestID}
}

// pathID is the id in the path. One that is not of the path's kind cannot be
// found there, whether or not it exists elsewhere.
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
