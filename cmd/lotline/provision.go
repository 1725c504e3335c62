package main

import (
	"context"
	"errors"
	"io"
	"regexp"
	"strings"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// provision makes sure that there is a key to sign tokens with, that the default
// organization has the API keys that are given, and that it has an API key of each
// level. It returns the keys that it made, which work when it returns. It prints new
// keys before it stores them, so that the log holds no key that nobody has seen. A
// *domain.HistoryError means that the default organization cannot be used; all other
// organizations can.
func (c *serveCmd) provision(ctx context.Context, n *node, out io.Writer) (map[domain.KeyLevel]string, error) {
	if err := n.makeSigningKey(ctx); err != nil {
		return nil, err
	}
	client := &adminClient{n.log, n.handler, n.views}
	org, err := client.ensureDefaultOrganization(ctx)
	if err != nil {
		return nil, err
	}
	made, all := map[domain.KeyLevel]string{}, map[domain.KeyLevel]string{}
	for level, given := range map[domain.KeyLevel]string{domain.SecretKey: c.SecretKey, domain.PublishableKey: c.PublishableKey} {
		if given != "" {
			all[level] = given
		} else if !org.HasKey(level) {
			made[level] = newKey(level)
			all[level] = made[level]
		}
	}
	printKeys(out, made)
	for level, key := range all {
		name := "provisioned"
		if made[level] != "" {
			name = "first start"
		}
		if err := n.provisionKey(ctx, client, org.ID, level, name, key); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// provisionKey makes sure that a key works and belongs to the organization.
func (n *node) provisionKey(ctx context.Context, client *adminClient, organization domain.ID, level domain.KeyLevel, name, key string) error {
	variable := map[domain.KeyLevel]string{domain.SecretKey: "LOTLINE_SECRET_KEY", domain.PublishableKey: "LOTLINE_PUBLISHABLE_KEY"}[level]
	hash := domain.KeyHash(key)
	if other, works := n.views.Credential(hash); works && other.OrganizationID != organization {
		return badConfig("%s: the key belongs to another organization: give another one", variable)
	}
	position, err := client.addKey(ctx, organization, level, name, key)
	if err != nil {
		return err
	}
	if err := n.views.WaitFor(ctx, position); err != nil {
		return err
	}
	if _, works := n.views.Credential(hash); !works {
		return badConfig("%s: the key was revoked or has expired: give another one", variable)
	}
	return nil
}

// makeSigningKey makes the first key to sign tokens with if the log has none. When
// several nodes start at once, only one of them makes it.
func (n *node) makeSigningKey(ctx context.Context) error {
	if _, err := n.views.SigningKeys(); !errors.Is(err, projections.ErrBehind) {
		return nil // it has one, or the keys' stream is in quarantine; then the rest of the engine still works
	}
	client := &adminClient{n.log, n.handler, n.views}
	made, err := client.changeSigningKeys(ctx, domain.MakeSigningKey{Secret: randomSecret(), OnlyFirst: true})
	if _, broken := errors.AsType[*domain.HistoryError](err); broken {
		return nil // the stream is in quarantine
	}
	if err != nil {
		return err
	}
	return n.views.WaitFor(ctx, made.Position)
}

var keyPattern = regexp.MustCompile(`^(sk|pk)_(live|test)_[0-9A-Za-z_-]{16,128}$`)

// checkGivenKey checks the form of an API key that is given in the environment.
func checkGivenKey(variable, key string, level domain.KeyLevel) error {
	if key != "" && (!keyPattern.MatchString(key) || !strings.HasPrefix(key, level.Prefix())) {
		return badConfig("%s must look like %slive_… with at least 16 letters, digits, - or _ behind it", variable, level.Prefix())
	}
	return nil
}
