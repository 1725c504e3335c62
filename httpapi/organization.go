package httpapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// getOrganization answers with whose key it is.
func (s *server) getOrganization(x *exchange, r *http.Request) error {
	account, err := s.account(x, r)
	if err != nil {
		return err
	}
	x.version(r, etag(account.Changed), func() []byte { return account.Organization.AppendJSON(nil) })
	return nil
}

// updateOrganization changes the fields that the body names. They are defaults of
// what is made from then on.
func (s *server) updateOrganization(x *exchange, r *http.Request) error {
	fields, _, err := readFields(x, r)
	if err != nil {
		return err
	}
	result, err := s.runIfMatch(x, r, commands.Request{Stream: x.organization.ID.Stream(), Command: domain.Update{Fields: fields}})
	if err != nil {
		return err
	}
	s.awaitEffect(r, result.Position)
	return s.written(x, r, http.StatusOK, result)
}

// account is the organization as it is after what the read waits for.
func (s *server) account(x *exchange, r *http.Request) (projections.Account, error) {
	if err := s.awaitWrites(x, r); err != nil {
		return projections.Account{}, err
	}
	account, ok := s.Views.Account(x.organization.ID)
	if !ok {
		// It came into quarantine since the key was looked at. From now on its keys
		// hold no more.
		broken, _ := s.Views.Owned(x.organization.ID, x.organization.ID)
		if broken == nil {
			return projections.Account{}, errors.New("the organization of a key is not there")
		}
		return projections.Account{}, broken
	}
	return account, nil
}

// awaitEffect holds the answer to a write back until this node goes by it: whoever
// was told that a key is made or revoked, or that a default is another, relies on
// it. When that takes too long, the answer is true all the same.
func (s *server) awaitEffect(r *http.Request, p domain.Position) {
	ctx, cancel := context.WithTimeout(r.Context(), ownWait)
	defer cancel()
	_ = s.Views.WaitFor(ctx, p) // it is written anyway
}
