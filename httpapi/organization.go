package httpapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// getOrganization answers with the organization that owns the caller's key.
func (s *server) getOrganization(x *exchange, r *http.Request) error {
	account, err := s.account(x, r)
	if err != nil {
		return err
	}
	x.jsonUnlessUnchanged(r, etag(account.Changed), func() []byte { return account.Organization.AppendJSON(nil) })
	return nil
}

// updateOrganization changes the organization's fields that the body names. The fields are
// defaults for distributions that are created afterwards.
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
	return s.answerWrite(x, r, http.StatusOK, result)
}

// account returns the caller's organization, after waiting for the writes that the read
// must include.
func (s *server) account(x *exchange, r *http.Request) (projections.Account, error) {
	if err := s.awaitWrites(x, r); err != nil {
		return projections.Account{}, err
	}
	account, ok := s.Views.Account(x.organization.ID)
	if !ok {
		// The organization was put into quarantine after its key was checked. From now
		// on its keys are no longer valid.
		broken, _ := s.Views.Owned(x.organization.ID, x.organization.ID)
		if broken == nil {
			return projections.Account{}, errors.New("the organization that owns a key does not exist")
		}
		return projections.Account{}, broken
	}
	return account, nil
}

// awaitEffect delays the answer to a write until this node's read models include it. A
// client that is told that a key was created or revoked, or that a default changed, relies
// on that in its next request. After ownWait the answer is sent anyway, because the write
// itself is done.
func (s *server) awaitEffect(r *http.Request, p domain.Position) {
	ctx, cancel := context.WithTimeout(r.Context(), ownWait)
	defer cancel()
	_ = s.Views.WaitFor(ctx, p) // the answer is correct even if the wait fails
}
