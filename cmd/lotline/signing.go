package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

type signingCmd struct {
	List   signingListCmd   `cmd:"" help:"List the signing keys whose tokens may still be valid."`
	Rotate signingRotateCmd `cmd:"" help:"Let the next key of the key set sign from now on. Tokens signed by the other keys stay valid."`
	Revoke signingRevokeCmd `cmd:"" help:"Revoke a signing key and all tokens that it has signed. If it is the key that signs now, a new one replaces it."`
}

// changeSigningKeys carries out a command on the keys that sign tokens.
func (a *adminClient) changeSigningKeys(ctx context.Context, c domain.Command) (commands.Result, error) {
	return a.handler.Handle(ctx, commands.Request{Stream: domain.SigningStream, Command: c, Caller: operator})
}

// randomSecret returns 32 random bytes.
func randomSecret() (secret [32]byte) {
	rand.Read(secret[:])
	return secret
}

type signingListCmd struct{}

// Run prints the keys. The last one is the key that signs now.
func (signingListCmd) Run(ctx context.Context, s *settings, to output) error {
	return withExistingData(ctx, s, func(a *adminClient) error {
		keys, err := a.views.SigningKeys()
		if errors.Is(err, projections.ErrBehind) {
			keys, err = &domain.SigningKeys{}, nil // the first start makes one
		}
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(to.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KEY\tCREATED\tRETIRED\tREVOKED")
		for _, k := range keys.Keys {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", k.ID, k.CreatedAt, tableTime(k.RetiredAt), tableTime(k.RevokedAt))
		}
		return table.Flush()
	})
}

type signingRotateCmd struct{}

// Run makes the next key sign and prints the id of the key that signs now. If there is
// no key yet, it makes the first one.
func (signingRotateCmd) Run(ctx context.Context, s *settings, to output) error {
	return withExistingData(ctx, s, func(a *adminClient) error {
		made, err := a.changeSigningKeys(ctx, domain.MakeSigningKey{Secret: randomSecret()})
		if err != nil {
			return err
		}
		current, _ := made.History.Aggregate.(*domain.SigningKeys).Current()
		_, err = fmt.Fprintln(to.out, current.ID)
		return err
	})
}

type signingRevokeCmd struct {
	Key string `arg:"" help:"The key's id, as signing list shows it and tokens name it (kid)."`
}

// Run revokes the key.
func (c signingRevokeCmd) Run(ctx context.Context, s *settings, to output) error {
	return withExistingData(ctx, s, func(a *adminClient) error {
		if _, err := a.changeSigningKeys(ctx, domain.RevokeSigningKey{KeyID: c.Key, Secret: randomSecret()}); err != nil {
			return refusalToConfigError(err)
		}
		_, err := fmt.Fprintln(to.out, "revoked", c.Key)
		return err
	})
}
