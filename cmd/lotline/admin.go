package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/projections"
)

// operator is who the command line acts as.
var operator = commands.Caller{Actor: domain.ActorOperator}

// office administers organizations, keys and signing keys through commands of its own, beside
// whatever engines are running: they learn of it from the log.
type office struct {
	log     commands.Log
	handler *commands.Handler
	views   interface {
		Organizations() []*domain.Organization
		Quarantined() []domain.HistoryError
		SigningKeys() (*domain.SigningKeys, error)
	}
}

// createOrganization makes an organization and returns its id.
func (o *office) createOrganization(ctx context.Context, id domain.ID, name, timeZone string, currency domain.Currency) error {
	_, err := o.handler.Handle(ctx, commands.Request{
		Stream: id.Stream(), Caller: operator,
		Command: domain.CreateOrganization{ID: id, Name: name, TimeZone: timeZone, CurrencyCode: currency},
	})
	return err
}

// newID makes a TypeID of now.
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

// defaultClaim is the stream in which the id of the default organization is
// claimed, so that nodes which start together make one only.
var defaultClaim = domain.ClaimStream(uuid.NewSHA1(uuid.Nil, []byte("organization "+defaultOrganization)).String())

// makeDefaultOrganization makes the default organization when there is none, and
// returns it as it is.
func (o *office) makeDefaultOrganization(ctx context.Context) (*domain.Organization, error) {
	proposed, err := newID(domain.KindOrganization.IDPrefix())
	if err != nil {
		return nil, err
	}
	claim, err := o.handler.Handle(ctx, commands.Request{Stream: defaultClaim, Command: domain.Claim{ID: proposed}, Caller: operator})
	if err != nil {
		return nil, err
	}
	id := claim.History.Aggregate.(*domain.Claims).Made
	made, err := o.handler.Handle(ctx, commands.Request{
		Stream: id.Stream(), Caller: operator,
		Command: domain.CreateOrganization{ID: id, Name: defaultOrganization, TimeZone: "UTC", CurrencyCode: "USD"},
	})
	if err != nil {
		return nil, err
	}
	return made.History.Aggregate.(*domain.Organization), nil
}

// newKey makes a live key that nobody can guess.
func newKey(level domain.KeyLevel) string {
	return domain.KeyText(level, domain.LiveKey, rand.Text())
}

// addKey gives an organization a key, which is like keyPattern; one that it has
// already is left as it is. It returns where that stands in the log.
func (o *office) addKey(ctx context.Context, organization domain.ID, level domain.KeyLevel, name, key string) (domain.Position, error) {
	mode, random, _ := strings.Cut(strings.TrimPrefix(key, level.Prefix()), "_")
	issued, err := o.handler.CreateKey(ctx, commands.KeyCreation{
		Organization: organization, Caller: operator, Random: random,
		Fields: fieldsOf(map[string]string{"level": string(level), "mode": mode, "name": name}),
	})
	return issued.Position, err
}

// fieldsOf are the fields of a request that has the values which are given.
func fieldsOf(values map[string]string) domain.Fields {
	fields := domain.Fields{}
	for name, value := range values {
		if value == "" {
			continue
		}
		raw, err := json.Marshal(value)
		if err != nil {
			panic("a string always encodes: " + err.Error())
		}
		fields[name] = raw
	}
	return fields
}

// find returns the organization that the operator means: the default organization
// for its reserved name, the organization with the id when text has the form of one,
// and else the only organization of that name. Organizations choose their own names,
// so neither the reserved name nor an id is ever looked for among them.
func (o *office) find(ctx context.Context, text string) (*domain.Organization, error) {
	if text == defaultOrganization {
		return o.findDefault(ctx)
	}
	if id, ok := domain.ParseID(domain.KindOrganization.IDPrefix(), text); ok {
		return o.findID(id)
	}
	var found []*domain.Organization
	for _, org := range o.views.Organizations() {
		if org.Name == text {
			found = append(found, org)
		}
	}
	switch len(found) {
	case 0:
		if unread := o.unreadable(); unread > 0 {
			return nil, badConfig("there is no organization %q, but the histories of %d are inconsistent: give the id", text, unread)
		}
		return nil, badConfig("there is no organization %q", text)
	case 1:
		return found[0], nil
	}
	return nil, badConfig("%d organizations are called %q: give the id", len(found), text)
}

func (o *office) findID(id domain.ID) (*domain.Organization, error) {
	for _, org := range o.views.Organizations() {
		if org.ID == id {
			return org, nil
		}
	}
	if err := o.quarantine(id); err != nil {
		return nil, err
	}
	return nil, badConfig("there is no organization %q", id)
}

// findDefault returns the default organization, whatever its name is by now. The
// claim stream has its id.
func (o *office) findDefault(ctx context.Context) (*domain.Organization, error) {
	claim := domain.NewHistory(defaultClaim)
	for r, err := range o.log.Read(ctx, defaultClaim, domain.NoStream) {
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
	return o.findID(id)
}

// quarantine is why nothing can be done with an organization whose history is
// inconsistent, or nil.
func (o *office) quarantine(id domain.ID) error {
	for _, broken := range o.views.Quarantined() {
		if broken.Stream == id.Stream() {
			return fmt.Errorf("the history of the organization %s is inconsistent: %w", id, &broken)
		}
	}
	return nil
}

// unreadable is how many organizations are in quarantine. Nobody knows their names.
func (o *office) unreadable() (n int) {
	for _, broken := range o.views.Quarantined() {
		if domain.StreamKind(broken.Stream) == domain.KindOrganization {
			n++
		}
	}
	return n
}

// withOffice runs f on the log that the settings name: on the server that is
// named, through the socket of the engine that has the data directory, or on the
// directory's file when nobody has it.
func withOffice(ctx context.Context, s *settings, f func(*office) error) (err error) {
	l, err := adminLog(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	scratch, err := os.MkdirTemp("", "lotline-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	views, err := projections.Open(filepath.Join(scratch, viewsFile), projections.Origin{ID: l.id, Log: l, Seen: l.seen}, l.keys, zerolog.Nop())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, views.Close()) }()
	tail := eventstore.NewTail(l.Log, []domain.Kind{domain.KindOrganization, domain.KindSigning}, l.head, zerolog.Nop(), views)
	defer start(tail.Run)()
	select {
	case <-tail.CaughtUp():
	case <-ctx.Done():
		return ctx.Err()
	}
	acknowledged := seenLog{l, views.Saw}
	handler := commands.NewHandler(acknowledged, nil, clock)
	handler.UseClock(l.clock)
	err = f(&office{acknowledged, handler, views})
	if l.dir != nil && l.seen.Log != "" {
		err = errors.Join(err, projections.SaveMark(l.dir.file(viewsFile), views.Seen()))
	}
	return err
}

// adminLog is the log with, where this process has to run the embedded store
// itself, the lock on the data directory.
func adminLog(ctx context.Context, s *settings) (*log, error) {
	dir, err := openDataDir(s.DataDir)
	if err == nil {
		l, err := openLog(ctx, s, dir, zerolog.Nop())
		if err != nil {
			return nil, errors.Join(err, dir.Close())
		}
		l.dir = dir
		return l, nil
	}
	if !errors.Is(err, errLocked) {
		return nil, err
	}
	path, err := filepath.Abs(s.DataDir)
	if err != nil {
		return nil, badConfig("data directory: %w", err)
	}
	theirs := &dataDir{path: path}
	key, made, err := masterKey(s, theirs)
	if err != nil {
		return nil, err
	}
	if made {
		return nil, badConfig("there is no master key in %s yet, and another process is using it: set LOTLINE_MASTER_KEY", path)
	}
	l := &log{clock: walltime.New(clock)}
	if err := mustBeRight(ctx, l.clock); err != nil {
		return nil, err
	}
	if err = l.connect(s, theirs.file(socketFile), key); err == nil {
		err = l.compareClocks(ctx, mustBeRight)
	}
	if err == nil {
		err = l.check(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

type orgCmd struct {
	Create orgCreateCmd `cmd:"" help:"Make an organization."`
	Show   orgShowCmd   `cmd:"" help:"Show an organization."`
	Update orgUpdateCmd `cmd:"" help:"Change an organization. What it has made stays as it is."`
}

type orgCreateCmd struct {
	Name     string `required:"" help:"What it is called."`
	TimeZone string `default:"UTC" help:"IANA time zone for times without an offset (${default})."`
	Currency string `default:"USD" help:"ISO 4217 code of prices without one (${default})."`
}

// Run makes the organization and prints its id.
func (c *orgCreateCmd) Run(ctx context.Context, s *settings, to streams) error {
	return withOffice(ctx, s, func(o *office) error {
		id, err := newID(domain.KindOrganization.IDPrefix())
		if err != nil {
			return err
		}
		if err := o.createOrganization(ctx, id, c.Name, c.TimeZone, domain.Currency(c.Currency)); err != nil {
			return refused(err)
		}
		_, err = fmt.Fprintln(to.out, id)
		return err
	})
}

type orgShowCmd struct {
	Org string `default:"default" help:"The organization's id or name; ${default} is the organization that the first start made, whatever its name is now."`
}

// Run prints the organization.
func (c *orgShowCmd) Run(ctx context.Context, s *settings, to streams) error {
	return withKeys(ctx, s, func(o *office) error {
		org, err := o.find(ctx, c.Org)
		if err != nil {
			return err
		}
		return showOrganization(to.out, org)
	})
}

// printable is a name as it is or, when it has characters that a terminal would obey
// rather than show, quoted. Organizations choose their names and those of their keys.
func printable(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return strconv.QuoteToGraphic(name)
	}
	return name
}

func showOrganization(out io.Writer, o *domain.Organization) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "id\t%s\nname\t%s\ntime zone\t%s\ncurrency\t%s\ncreated\t%s\nupdated\t%s\n",
		o.ID, printable(o.Name), o.TimeZone, o.CurrencyCode, o.CreatedAt, o.UpdatedAt)
	return table.Flush()
}

type orgUpdateCmd struct {
	Org      string `default:"default" help:"The organization's id or name; ${default} is the organization that the first start made, whatever its name is now."`
	Name     string `help:"What it is called from now on."`
	TimeZone string `help:"IANA time zone for times without an offset."`
	Currency string `help:"ISO 4217 code of prices without one."`
}

// Run changes what is given and prints the organization.
func (c *orgUpdateCmd) Run(ctx context.Context, s *settings, to streams) error {
	changes := fieldsOf(map[string]string{"name": c.Name, "timeZone": c.TimeZone, "currencyCode": c.Currency})
	if len(changes) == 0 {
		return badConfig("nothing to change: give --name, --time-zone or --currency")
	}
	return withKeys(ctx, s, func(o *office) error {
		org, err := o.find(ctx, c.Org)
		if err != nil {
			return err
		}
		result, err := o.handler.Handle(ctx, commands.Request{
			Stream: org.ID.Stream(), Command: domain.Update{Fields: changes}, Caller: operator,
		})
		if err != nil {
			return refused(err)
		}
		return showOrganization(to.out, result.History.Aggregate.(*domain.Organization))
	})
}

// refused makes a refusal a matter of configuration: the arguments are wrong.
func refused(err error) error {
	if _, ok := errors.AsType[*domain.Error](err); ok {
		return configError{err}
	}
	return err
}

// withKeys is withOffice for what needs organizations that are there already. A
// data directory that is not there is then a mistake, and is not made.
func withKeys(ctx context.Context, s *settings, f func(*office) error) error {
	if _, err := os.Stat(s.DataDir); err != nil {
		return badConfig("data directory: %w", err)
	}
	return withOffice(ctx, s, f)
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
	return withKeys(ctx, s, func(o *office) error {
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
	return withKeys(ctx, s, func(o *office) error {
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
	return withKeys(ctx, s, func(o *office) error {
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
