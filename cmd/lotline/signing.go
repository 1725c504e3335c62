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
	List   signingListCmd   `cmd:"" help:"List the keys whose tokens may still be good."`
	Rotate signingRotateCmd `cmd:"" help:"Let the next key of the key set sign from now on. What the others signed stays good."`
	Revoke signingRevokeCmd `cmd:"" help:"End a key and all that it has signed. When it is the key that signs, a fresh one takes its place."`
}

// sign changes the keys by which tokens are signed.
func (o *adminClient) sign(ctx context.Context, c domain.Command) (commands.Result, error) {
	return o.handler.Handle(ctx, commands.Request{Stream: domain.SigningStream, Command: c, Caller: operator})
}

// randomSecret is what nobody can guess.
func randomSecret() (secret [32]byte) {
	rand.Read(secret[:])
	return secret
}

type signingListCmd struct{}

// Run prints the keys, the one that signs last.
func (signingListCmd) Run(ctx context.Context, s *settings, to streams) error {
	return withExistingData(ctx, s, func(o *adminClient) error {
		keys, err := o.views.SigningKeys()
		if errors.Is(err, projections.ErrBehind) {
			keys, err = &domain.SigningKeys{}, nil // the first start makes one
		}
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(to.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KEY\tCREATED\tRETIRED\tREVOKED")
		for _, k := range keys.Keys {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", k.ID, k.CreatedAt, when(k.RetiredAt), when(k.RevokedAt))
		}
		return table.Flush()
	})
}

type signingRotateCmd struct{}

// Run makes the next key and prints its id. Without any key yet it makes the first.
func (signingRotateCmd) Run(ctx context.Context, s *settings, to streams) error {
	return withExistingData(ctx, s, func(o *adminClient) error {
		made, err := o.sign(ctx, domain.MakeSigningKey{Secret: randomSecret()})
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

// Run ends the key.
func (c signingRevokeCmd) Run(ctx context.Context, s *settings, to streams) error {
	return withExistingData(ctx, s, func(o *adminClient) error {
		if _, err := o.sign(ctx, domain.RevokeSigningKey{KeyID: c.Key, Secret: randomSecret()}); err != nil {
			return refused(err)
		}
		_, err := fmt.Fprintln(to.out, "revoked", c.Key)
		return err
	})
}
