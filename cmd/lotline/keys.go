package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

// newKey makes a live key that nobody can guess.
func newKey(level domain.KeyLevel) string {
	return domain.KeyText(level, domain.LiveKey, rand.Text())
}

// addKey gives an organization a key, which is like keyPattern; one that it has
// already is left as it is. It returns where that stands in the log.
func (o *adminClient) addKey(ctx context.Context, organization domain.ID, level domain.KeyLevel, name, key string) (domain.Position, error) {
	mode, random, _ := strings.Cut(strings.TrimPrefix(key, level.Prefix()), "_")
	issued, err := o.handler.CreateKey(ctx, commands.KeyCreation{
		Organization: organization, Caller: operator, Random: random,
		Fields: fieldsOf(map[string]string{"level": string(level), "mode": mode, "name": name}),
	})
	return issued.Position, err
}

type keysCmd struct {
	Create keysCreateCmd `cmd:"" help:"Make a key and print it, once."`
	List   keysListCmd   `cmd:"" help:"List keys."`
	Revoke keysRevokeCmd `cmd:"" help:"End a key."`
}

type keysCreateCmd struct {
	Org   string `default:"default" help:"The organization's id or name; ${default} is the organization that the first start made, whatever its name is now."`
	Level string `enum:"secret,publishable" default:"secret" help:"secret or publishable (${default})."`
	Mode  string `enum:"live,test" default:"live" help:"live or test (${default})."`
	Name  string `help:"What it is for."`

	ExpiresAt string `placeholder:"TIME" help:"When it stops working, such as 2027-01-31T12:00:00Z; without an offset in the organization's time zone (never)."`
}

// Run makes the key and prints it.
func (c *keysCreateCmd) Run(ctx context.Context, s *settings, to streams) error {
	return withExistingData(ctx, s, func(o *adminClient) error {
		org, err := o.find(ctx, c.Org)
		if err != nil {
			return err
		}
		issued, err := o.handler.CreateKey(ctx, commands.KeyCreation{
			Organization: org.ID, Caller: operator,
			Fields: fieldsOf(map[string]string{"level": c.Level, "mode": c.Mode, "name": c.Name, "expiresAt": c.ExpiresAt}),
		})
		if err != nil {
			return refused(err)
		}
		_, err = fmt.Fprintln(to.out, issued.Text)
		return err
	})
}

type keysListCmd struct {
	Org string `help:"Only those of this organization, by id or name."`
}

// Run prints the keys, without what they are.
func (c *keysListCmd) Run(ctx context.Context, s *settings, to streams) error {
	return withExistingData(ctx, s, func(o *adminClient) error {
		organizations := o.views.Organizations()
		if c.Org != "" {
			org, err := o.find(ctx, c.Org)
			if err != nil {
				return err
			}
			organizations = []*domain.Organization{org}
		}
		table := tabwriter.NewWriter(to.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KEY\tBEGINS\tLEVEL\tORGANIZATION\tORG NAME\tNAME\tCREATED\tEXPIRES\tREVOKED")
		for _, org := range organizations {
			for _, k := range org.SortedKeys() {
				fmt.Fprintf(table, "%s\t%s…\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
					k.ID, k.Hint, k.Level, org.ID, printable(org.Name), printable(k.Name), k.CreatedAt, when(k.ExpiresAt), when(k.RevokedAt))
			}
		}
		return table.Flush()
	})
}

// when is a time in a table.
func when(t domain.Instant) string {
	if t == 0 {
		return "-"
	}
	return t.String()
}

type keysRevokeCmd struct {
	Key string `arg:"" help:"The key's id, as keys list shows it."`
}

// Run ends the key, the last secret one as well: the operator can make another.
func (c *keysRevokeCmd) Run(ctx context.Context, s *settings, to streams) error {
	return withExistingData(ctx, s, func(o *adminClient) error {
		for _, org := range o.views.Organizations() {
			if _, ok := org.Keys[domain.ID(c.Key)]; !ok {
				continue
			}
			_, err := o.handler.Handle(ctx, commands.Request{
				Stream: org.ID.Stream(), Command: domain.RevokeKey{KeyID: domain.ID(c.Key), EvenLast: true}, Caller: operator,
			})
			if err != nil {
				return refused(err)
			}
			_, err = fmt.Fprintln(to.out, "revoked", c.Key)
			return err
		}
		return badConfig("there is no key %q", c.Key)
	})
}
