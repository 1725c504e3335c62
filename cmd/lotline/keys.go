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

// newKey makes a live API key from random text.
func newKey(level domain.KeyLevel) string {
	return domain.KeyText(level, domain.LiveKey, rand.Text())
}

// addKey adds an API key to an organization. The key must match keyPattern. If the
// organization already has the key, addKey changes nothing. It returns the log position
// from which the organization has the key.
func (a *adminClient) addKey(ctx context.Context, organization domain.ID, level domain.KeyLevel, name, key string) (domain.Position, error) {
	mode, random, _ := strings.Cut(strings.TrimPrefix(key, level.Prefix()), "_")
	issued, err := a.handler.CreateKey(ctx, commands.KeyCreation{
		Organization: organization, Caller: operator, Random: random,
		Fields: fieldsOf(map[string]string{"level": string(level), "mode": mode, "name": name}),
	})
	return issued.Position, err
}

type keysCmd struct {
	Create keysCreateCmd `cmd:"" help:"Make an API key and print it. It is not printed again."`
	List   keysListCmd   `cmd:"" help:"List API keys."`
	Revoke keysRevokeCmd `cmd:"" help:"Revoke an API key."`
}

type keysCreateCmd struct {
	Org   string `default:"default" help:"The organization's id or name; ${default} is the organization that the first start made, whatever its name is now."`
	Level string `enum:"secret,publishable" default:"secret" help:"The key's level: secret or publishable (${default})."`
	Mode  string `enum:"live,test" default:"live" help:"The key's mode: live or test (${default})."`
	Name  string `help:"A name that says what the key is for."`

	ExpiresAt string `placeholder:"TIME" help:"When the key expires, such as 2027-01-31T12:00:00Z. A time without an offset is in the organization's time zone (none: never)."`
}

// Run makes the key and prints it.
func (c *keysCreateCmd) Run(ctx context.Context, s *settings, to output) error {
	return withExistingData(ctx, s, func(a *adminClient) error {
		org, err := a.find(ctx, c.Org)
		if err != nil {
			return err
		}
		issued, err := a.handler.CreateKey(ctx, commands.KeyCreation{
			Organization: org.ID, Caller: operator,
			Fields: fieldsOf(map[string]string{"level": c.Level, "mode": c.Mode, "name": c.Name, "expiresAt": c.ExpiresAt}),
		})
		if err != nil {
			return refusalToConfigError(err)
		}
		_, err = fmt.Fprintln(to.out, issued.Text)
		return err
	})
}

type keysListCmd struct {
	Org string `help:"List only the keys of this organization, by id or name."`
}

// Run prints the keys' ids and properties, but not their secret texts.
func (c *keysListCmd) Run(ctx context.Context, s *settings, to output) error {
	return withExistingData(ctx, s, func(a *adminClient) error {
		organizations := a.views.Organizations()
		if c.Org != "" {
			org, err := a.find(ctx, c.Org)
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
					k.ID, k.Hint, k.Level, org.ID, printable(org.Name), printable(k.Name), k.CreatedAt, tableTime(k.ExpiresAt), tableTime(k.RevokedAt))
			}
		}
		return table.Flush()
	})
}

// tableTime returns a time as tables print it.
func tableTime(t domain.Instant) string {
	if t == 0 {
		return "-"
	}
	return t.String()
}

type keysRevokeCmd struct {
	Key string `arg:"" help:"The key's id, as keys list shows it."`
}

// Run revokes the key. It revokes an organization's last secret key too, because the
// operator can make another one.
func (c *keysRevokeCmd) Run(ctx context.Context, s *settings, to output) error {
	return withExistingData(ctx, s, func(a *adminClient) error {
		for _, org := range a.views.Organizations() {
			if _, ok := org.Keys[domain.ID(c.Key)]; !ok {
				continue
			}
			_, err := a.handler.Handle(ctx, commands.Request{
				Stream: org.ID.Stream(), Command: domain.RevokeKey{KeyID: domain.ID(c.Key), EvenLast: true}, Caller: operator,
			})
			if err != nil {
				return refusalToConfigError(err)
			}
			_, err = fmt.Fprintln(to.out, "revoked", c.Key)
			return err
		}
		return badConfig("there is no key %q", c.Key)
	})
}
