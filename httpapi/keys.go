package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

const keysPath = basePath + "/keys"

// createKey creates an API key. Its answer is the only one that ever includes the key's text.
func (s *server) createKey(x *exchange, r *http.Request) error {
	fields, key, err := readRepeatable(x, r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), commandTimeout, errNoAnswer)
	defer cancel()
	issued, err := s.Commands.CreateKey(ctx, commands.KeyCreation{
		Organization: x.organization.ID, Fields: fields, Caller: x.caller(), IdempotencyKey: key,
	})
	s.acknowledge(x, issued.Position)
	if err != nil {
		return err
	}
	if issued.Made.ID == "" {
		return errors.New("a command that creates a key returned none")
	}
	s.awaitEffect(r, issued.Position)
	// Only the key's hash is stored, so a repeated request cannot get the key's text.
	text := []byte("null")
	if issued.Replayed {
		x.set("Idempotent-Replayed", "true")
	} else {
		text = encode(issued.Text)
	}
	answer := issued.Made.AppendJSON(nil)
	answer = append(answer[:len(answer)-1], `,"key":`...)
	answer = append(append(answer, text...), '}')
	x.set("Location", keysPath+"/"+string(issued.Made.ID))
	x.json(r, http.StatusCreated, typeJSON, answer)
	return nil
}

// getKey answers with one key, without the key's text.
func (s *server) getKey(x *exchange, r *http.Request) error {
	k, err := s.key(x, r)
	if err != nil {
		return err
	}
	x.json(r, http.StatusOK, typeJSON, k.AppendJSON(nil))
	return nil
}

// revokeKey revokes a key.
func (s *server) revokeKey(x *exchange, r *http.Request) error {
	match, _, err := precondition(r)
	if err != nil {
		return err
	}
	if match != nil {
		if _, err := s.key(x, r); err != nil {
			return err
		}
		return domain.Refuse(domain.PreconditionFailed, "keys have no entity tags")
	}
	result, err := s.run(x, r, commands.Request{
		Stream: x.organization.ID.Stream(), Command: domain.RevokeKey{KeyID: domain.ID(mux.Vars(r)["id"])},
	})
	if err != nil {
		return err
	}
	s.awaitEffect(r, result.Position)
	x.empty(http.StatusNoContent)
	return nil
}

// key returns the key that the path names.
func (s *server) key(x *exchange, r *http.Request) (domain.Key, error) {
	account, err := s.account(x, r)
	if err != nil {
		return domain.Key{}, err
	}
	k, ok := account.Organization.Keys[domain.ID(mux.Vars(r)["id"])]
	if !ok {
		return domain.Key{}, domain.Refuse(domain.KeyNotFound, "")
	}
	return k, nil
}

// listKeys answers with a page of the organization's keys, the newest first.
func (s *server) listKeys(x *exchange, r *http.Request) error {
	given, err := parseQuery(r)
	if err != nil {
		return err
	}
	// "key" is no kind of distribution. It makes cursors of other lists invalid here.
	q, err := s.readList(x.organization.ID, []domain.Kind{"key"}, pageParameters, given)
	if err != nil {
		return err
	}
	account, err := s.account(x, r)
	if err != nil {
		return err
	}
	keys := account.Organization.SortedKeys()
	slices.Reverse(keys)
	from, to := pageOf(keys, q)
	info := pageInfo{HasPreviousPage: from > 0, HasNextPage: to < len(keys)}
	keys = keys[from:to]
	rows := make([][]byte, len(keys))
	for i, k := range keys {
		rows[i] = k.AppendJSON(nil)
	}
	if len(keys) > 0 {
		info.StartCursor = new(s.formatCursor(q, projections.Cursor{ID: keys[0].ID}))
		info.EndCursor = new(s.formatCursor(q, projections.Cursor{ID: keys[len(keys)-1].ID}))
	}
	x.json(r, http.StatusOK, typeJSON, appendList(nil, rows, info))
	return nil
}

// pageOf returns the indexes at which the page that q asks for begins and ends. The keys
// must be sorted from newest to oldest.
func pageOf(keys []domain.Key, q projections.ListQuery) (from, to int) {
	to = len(keys)
	if q.From != nil {
		at, there := slices.BinarySearchFunc(keys, q.From.ID, func(k domain.Key, id domain.ID) int {
			return strings.Compare(string(id), string(k.ID))
		})
		if from = at; there {
			from++
		}
		if q.Backward {
			from, to = 0, at
		}
	}
	if q.Backward {
		return max(from, to-q.Limit), to
	}
	return from, min(to, from+q.Limit)
}
