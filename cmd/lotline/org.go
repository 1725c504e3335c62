package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/google/uuid"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

// createOrganization makes an organization with this id.
func (a *adminClient) createOrganization(ctx context.Context, id domain.ID, name, timeZone string, currency domain.Currency) error {
	_, err := a.handler.Handle(ctx, commands.Request{
		Stream: id.Stream(), Caller: operator,
		Command: domain.CreateOrganization{ID: id, Name: name, TimeZone: timeZone, CurrencyCode: currency},
	})
	return err
}

// newID makes a TypeID with the current time in it.
func newID(prefix string) (domain.ID, error) {
	u, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	return domain.NewID(prefix, u), nil
}

// defaultOrganization is the first name of the organization that provisioned keys
// belong to. On the command line it always means that organization.
const defaultOrganization = "default"

// defaultClaim is the stream in which a node claims the id of the default organization,
// so that nodes that start at once make only one.
var defaultClaim = domain.ClaimStream(uuid.NewSHA1(uuid.Nil, []byte("organization "+defaultOrganization)).String())

// ensureDefaultOrganization makes the default organization if there is none, and
// returns it.
func (a *adminClient) ensureDefaultOrganization(ctx context.Context) (*domain.Organization, error) {
	proposed, err := newID(domain.KindOrganization.IDPrefix())
	if err != nil {
		return nil, err
	}
	claim, err := a.handler.Handle(ctx, commands.Request{Stream: defaultClaim, Command: domain.Claim{ID: proposed}, Caller: operator})
	if err != nil {
		return nil, err
	}
	id := claim.History.Aggregate.(*domain.Claims).Made
	made, err := a.handler.Handle(ctx, commands.Request{
		Stream: id.Stream(), Caller: operator,
		Command: domain.CreateOrganization{ID: id, Name: defaultOrganization, TimeZone: "UTC", CurrencyCode: "USD"},
	})
	if err != nil {
		return nil, err
	}
	return made.History.Aggregate.(*domain.Organization), nil
}

// find returns the organization that the operator names. The reserved name means the
// default organization, and a text in the form of an id means the organization with that
// id. Any other text is a name, and only one organization may have it. Organizations
// choose their own names, so find never compares these with the reserved name or an id.
func (a *adminClient) find(ctx context.Context, text string) (*domain.Organization, error) {
	if text == defaultOrganization {
		return a.findDefault(ctx)
	}
	if id, ok := domain.ParseID(domain.KindOrganization.IDPrefix(), text); ok {
		return a.findID(id)
	}
	var found []*domain.Organization
	for _, org := range a.views.Organizations() {
		if org.Name == text {
			found = append(found, org)
		}
	}
	switch len(found) {
	case 0:
		if unread := a.unreadable(); unread > 0 {
			return nil, badConfig("there is no organization %q, but the histories of %d are inconsistent: give the id", text, unread)
		}
		return nil, badConfig("there is no organization %q", text)
	case 1:
		return found[0], nil
	}
	return nil, badConfig("%d organizations are called %q: give the id", len(found), text)
}

func (a *adminClient) findID(id domain.ID) (*domain.Organization, error) {
	for _, org := range a.views.Organizations() {
		if org.ID == id {
			return org, nil
		}
	}
	if err := a.quarantine(id); err != nil {
		return nil, err
	}
	return nil, badConfig("there is no organization %q", id)
}

// findDefault returns the default organization, whatever its name is now. The claim
// stream has its id.
func (a *adminClient) findDefault(ctx context.Context) (*domain.Organization, error) {
	claim := domain.NewHistory(defaultClaim)
	for r, err := range a.log.Read(ctx, defaultClaim, domain.NoStream) {
		if err == nil {
			err = claim.Apply(r)
		}
		if err != nil {
			return nil, err
		}
	}
	id := claim.Aggregate.(*domain.Claims).Made
	if id == "" {
		return nil, badConfig("there is no organization %q: the first start makes it; name another by its id", defaultOrganization)
	}
	return a.findID(id)
}

// quarantine returns an error if the organization is in quarantine because its history
// is inconsistent.
func (a *adminClient) quarantine(id domain.ID) error {
	for _, broken := range a.views.Quarantined() {
		if broken.Stream == id.Stream() {
			return fmt.Errorf("the history of the organization %s is inconsistent: %w", id, &broken)
		}
	}
	return nil
}

// unreadable returns how many organizations are in quarantine. Their names are unknown.
func (a *adminClient) unreadable() (n int) {
	for _, broken := range a.views.Quarantined() {
		if domain.StreamKind(broken.Stream) == domain.KindOrganization {
			n++
		}
	}
	return n
}

type orgCmd struct {
	Create orgCreateCmd `cmd:"" help:"Make an organization."`
	Show   orgShowCmd   `cmd:"" help:"Show an organization."`
	Update orgUpdateCmd `cmd:"" help:"Change an organization. Its existing distributions stay as they are."`
}

type orgCreateCmd struct {
	Name     string `required:"" help:"The organization's name."`
	TimeZone string `default:"UTC" help:"IANA time zone for times without an offset (${default})."`
	Currency string `default:"USD" help:"ISO 4217 code for prices without a currency (${default})."`
}

// Run makes the organization and prints its id.
func (c *orgCreateCmd) Run(ctx context.Context, s *settings, to output) error {
	return withAdminClient(ctx, s, func(a *adminClient) error {
		id, err := newID(domain.KindOrganization.IDPrefix())
		if err != nil {
			return err
		}
		if err := a.createOrganization(ctx, id, c.Name, c.TimeZone, domain.Currency(c.Currency)); err != nil {
			return refusalToConfigError(err)
		}
		_, err = fmt.Fprintln(to.out, id)
		return err
	})
}

type orgShowCmd struct {
	Org string `default:"default" help:"The organization's id or name; ${default} is the organization that the first start made, whatever its name is now."`
}

// Run prints the organization.
func (c *orgShowCmd) Run(ctx context.Context, s *settings, to output) error {
	return withExistingData(ctx, s, func(a *adminClient) error {
		org, err := a.find(ctx, c.Org)
		if err != nil {
			return err
		}
		return printOrganization(to.out, org)
	})
}

// printable returns a name in a form that is safe to print. It quotes names with
// control characters, which a terminal would execute: tenants choose their own names
// and those of their keys.
func printable(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return strconv.QuoteToGraphic(name)
	}
	return name
}

func printOrganization(out io.Writer, org *domain.Organization) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "id\t%s\nname\t%s\ntime zone\t%s\ncurrency\t%s\ncreated\t%s\nupdated\t%s\n",
		org.ID, printable(org.Name), org.TimeZone, org.CurrencyCode, org.CreatedAt, org.UpdatedAt)
	return table.Flush()
}

type orgUpdateCmd struct {
	Org      string `default:"default" help:"The organization's id or name; ${default} is the organization that the first start made, whatever its name is now."`
	Name     string `help:"The new name."`
	TimeZone string `help:"The new IANA time zone for times without an offset."`
	Currency string `help:"The new ISO 4217 code for prices without a currency."`
}

// Run changes what is given and prints the organization.
func (c *orgUpdateCmd) Run(ctx context.Context, s *settings, to output) error {
	changes := fieldsOf(map[string]string{"name": c.Name, "timeZone": c.TimeZone, "currencyCode": c.Currency})
	if len(changes) == 0 {
		return badConfig("nothing to change: give --name, --time-zone or --currency")
	}
	return withExistingData(ctx, s, func(a *adminClient) error {
		org, err := a.find(ctx, c.Org)
		if err != nil {
			return err
		}
		result, err := a.handler.Handle(ctx, commands.Request{
			Stream: org.ID.Stream(), Command: domain.Update{Fields: changes}, Caller: operator,
		})
		if err != nil {
			return refusalToConfigError(err)
		}
		return printOrganization(to.out, result.History.Aggregate.(*domain.Organization))
	})
}
