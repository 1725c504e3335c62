package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/commands/scheduler"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/eventstore/natsbus"
	"github.com/lotline/lotline/eventstore/relay"
	"github.com/lotline/lotline/eventstore/sink"
	"github.com/lotline/lotline/httpapi"
	"github.com/lotline/lotline/projections"
)

type serveCmd struct {
	Listen         string `env:"LOTLINE_LISTEN" default:":8080" placeholder:"HOST:PORT" help:"Where HTTP is served (${default})."`
	MetricsListen  string `env:"LOTLINE_METRICS_LISTEN" placeholder:"HOST:PORT" help:"Where /metrics is served, and /readyz with all details (none: /metrics is where the rest is)."`
	OTLPEndpoint   string `name:"otlp-endpoint" env:"LOTLINE_OTLP_ENDPOINT,OTEL_EXPORTER_OTLP_ENDPOINT" placeholder:"URL" help:"The OpenTelemetry collector that takes spans over HTTP, such as http://localhost:4318 (none: there are no spans)."`
	Bus            string `env:"LOTLINE_BUS" placeholder:"nats://…" help:"A NATS server or cluster with JetStream that is sent all that happens (none: it stays in the process)."`
	SecretKey      string `env:"LOTLINE_SECRET_KEY" placeholder:"sk_live_…" help:"A secret key of the organization default (made and shown at the first start when not given)."`
	PublishableKey string `env:"LOTLINE_PUBLISHABLE_KEY" placeholder:"pk_live_…" help:"A publishable key of the organization default (likewise)."`

	Restored bool `help:"Declare that the log was restored from a copy, or is another one than before. For one start: do not keep it in a service's configuration."`

	RateLimitSecret   int       `env:"LOTLINE_RATE_LIMIT_SECRET" default:"600000" placeholder:"N" help:"How many requests a minute an organization may make with its secret keys (${default}; 0: any number)."`
	RateLimitConsumer int       `env:"LOTLINE_RATE_LIMIT_CONSUMER" default:"600" placeholder:"N" help:"How many requests a minute a consumer may make with access tokens (${default}; 0: any number)."`
	RateLimitPublic   int       `env:"LOTLINE_RATE_LIMIT_PUBLIC" default:"60000" placeholder:"N" help:"How many requests a minute a client address may make without one (${default}; 0: any number)."`
	TrustedProxies    []proxies `env:"LOTLINE_TRUSTED_PROXIES" placeholder:"CIDR" help:"The proxies whose X-Forwarded-For says what the client address is, such as 10.0.0.0/8,fd00::/8."`
}

func (c *serveCmd) validate() error {
	if c.Bus != "" {
		if err := natsbus.Check(c.Bus); err != nil {
			return badConfig("LOTLINE_BUS: %w", err)
		}
	}
	if min(c.RateLimitSecret, c.RateLimitConsumer, c.RateLimitPublic) < 0 {
		return badConfig("LOTLINE_RATE_LIMIT_SECRET, LOTLINE_RATE_LIMIT_CONSUMER and LOTLINE_RATE_LIMIT_PUBLIC may not be negative; 0 is no limit")
	}
	if err := provisioned("LOTLINE_SECRET_KEY", c.SecretKey, domain.SecretKey); err != nil {
		return err
	}
	return provisioned("LOTLINE_PUBLISHABLE_KEY", c.PublishableKey, domain.PublishableKey)
}

func (c *serveCmd) limits() httpapi.Limits {
	l := httpapi.Limits{Secret: c.RateLimitSecret, Consumer: c.RateLimitConsumer, Public: c.RateLimitPublic}
	for _, n := range c.TrustedProxies {
		l.TrustedProxies = append(l.TrustedProxies, n.Prefix)
	}
	return l
}

// Run serves until ctx ends, and then shuts down in order.
func (c *serveCmd) Run(ctx context.Context, s *settings, to streams) (err error) {
	if err := c.validate(); err != nil {
		return err
	}
	logger, flush := newLogger(s.LogFormat, to.err)
	defer func() { err = errors.Join(err, flush()) }()
	spans, err := openSpans(ctx, c.OTLPEndpoint, logger)
	if err != nil {
		return err
	}
	defer spans.close()
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	d, err := c.openDoor(ctx, newObserver(spans.tracer()), logger)
	if err != nil {
		return err
	}
	return c.runBehind(ctx, d, s, dir, to.out)
}

// runBehind brings up, behind an open door, all that it leads to, and shuts it
// down in order when ctx ends.
func (c *serveCmd) runBehind(ctx context.Context, d *door, s *settings, dir *dataDir, out io.Writer) error {
	s.restored = c.Restored
	found := reportWaiting(d)
	l, err := openLogWhen(ctx, s, dir, d.logger, d.clock, untilRight)
	found()
	if err != nil {
		return errors.Join(unlessStopped(ctx, err), d.close())
	}
	d.foundLog.Store(true)
	n, err := newNode(l, dir, nodeOptions{
		limits:   c.limits(),
		broker:   c.Bus,
		observer: d.observer,
		apart:    d.operations != nil,
	}, d.logger)
	if err != nil {
		return errors.Join(err, d.close(), l.Close())
	}
	d.leadTo(n.api, n.operations)
	err = c.runNode(ctx, n, d, out)
	asked := ctx.Err() != nil
	if asked {
		d.logger.Info().Msg("stopping")
	}
	err = errors.Join(err, d.close(), n.shutDown(), l.Close())
	if asked && err == nil {
		d.logger.Info().Msg("stopped")
	}
	return err
}

// firstReport is after how long a start that waits for the store says so.
const firstReport = time.Second

// reportWaiting says now and again what the start waits for, until what it returns is
// called.
func reportWaiting(d *door) func() {
	began := time.Now()
	return start(func(ctx context.Context) {
		for pause := firstReport; ; pause = progressEvery {
			select {
			case <-time.After(pause):
				line, message := d.logger.Warn().Int("seconds", int(time.Since(began).Seconds())), "waiting for the event store"
				if err := d.clock.Usable(); isWrong(err) {
					line, message = line.Err(err), "waiting for the clock"
				}
				line.Msg(message)
			case <-ctx.Done():
				return
			}
		}
	})
}

// unlessStopped is err, or nil when the start ended because ctx did: whoever asks
// to stop before all is ready has not met a fault.
func unlessStopped(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// runNode brings the node up and waits for the end.
func (c *serveCmd) runNode(ctx context.Context, n *node, d *door, out io.Writer) error {
	if !n.catchUp(ctx) {
		return nil
	}
	made, err := c.provision(ctx, n, out)
	if broken, ok := errors.AsType[*domain.HistoryError](err); ok {
		n.logger.Warn().Str("stream", broken.Stream).Msg("no keys were set up: the history of the organization default is inconsistent")
		made, err = nil, nil
	}
	if err != nil {
		return unlessStopped(ctx, fmt.Errorf("set up keys and the organization %s: %w", defaultOrganization, err))
	}
	n.keepTime()
	n.sendOut()
	if n.log.embedded != nil {
		n.log.embedded.announce(out)
	}
	greet(out, d.address, made)
	n.logger.Info().Stringer("address", d.address).Msg("ready")
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.failed:
		return fmt.Errorf("serve HTTP: %w", err)
	case err := <-n.log.failed():
		return err
	}
}

// provision makes sure that there is a key to sign tokens with, and that the default
// organization has the keys that are given, and a key of each level at all. It returns the keys that it made, which
// work by then. They are shown before they are stored, so that there is none in
// the log that nobody has seen. A *domain.HistoryError says that the default
// organization cannot be used; all others can.
func (c *serveCmd) provision(ctx context.Context, n *node, out io.Writer) (map[domain.KeyLevel]string, error) {
	if err := n.makeSigningKey(ctx); err != nil {
		return nil, err
	}
	o := &office{n.log, n.handler, n.views}
	org, err := o.makeDefaultOrganization(ctx)
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
	showKeys(out, made)
	for level, key := range all {
		name := "provisioned"
		if made[level] != "" {
			name = "first start"
		}
		if err := n.giveKey(ctx, o, org.ID, level, name, key); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// giveKey makes sure that a key works, and is an organization's.
func (n *node) giveKey(ctx context.Context, o *office, organization domain.ID, level domain.KeyLevel, name, key string) error {
	variable := map[domain.KeyLevel]string{domain.SecretKey: "LOTLINE_SECRET_KEY", domain.PublishableKey: "LOTLINE_PUBLISHABLE_KEY"}[level]
	hash := domain.KeyHash(key)
	if other, works := n.views.Credential(hash); works && other.OrganizationID != organization {
		return badConfig("%s: the key belongs to another organization: give another one", variable)
	}
	position, err := o.addKey(ctx, organization, level, name, key)
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

// makeSigningKey makes the first key to sign tokens with, when the log has none. Of
// nodes that start together one makes it.
func (n *node) makeSigningKey(ctx context.Context) error {
	if _, err := n.views.SigningKeys(); !errors.Is(err, projections.ErrBehind) {
		return nil // or its stream is in quarantine, and all else goes on
	}
	o := &office{n.log, n.handler, n.views}
	made, err := o.sign(ctx, domain.MakeSigningKey{Secret: randomSecret(), OnlyFirst: true})
	if _, broken := errors.AsType[*domain.HistoryError](err); broken {
		return nil // likewise
	}
	if err != nil {
		return err
	}
	return n.views.WaitFor(ctx, made.Position)
}

// node is an engine while it runs.
type node struct {
	logger    zerolog.Logger
	log       *log
	views     *projections.Views
	handler   *commands.Handler
	bus       *gochannel.GoChannel
	relay     *relay.Relay
	broker    *natsbus.Bus // nil without one
	sink      *sink.Sink   // what sends to it
	tail      *eventstore.Tail
	scheduler *scheduler.Scheduler
	api       http.Handler
	observer  *observer
	caughtUp  atomic.Bool
	ahead     *aheadStreams
	// operations answers on the operators' own listener, nil without one.
	operations http.Handler

	// What stops the parts that run, nil for those that do not yet.
	stopClock, stopViews, stopSeen, stopRelay, stopTail, stopScheduler, stopSink func()
}

// What commands go by: the clock, and the log as it stands before them. Tests put
// ones in their place that fail.
var (
	clock       = time.Now
	elapsed     = func() time.Duration { return time.Since(programBegan) }
	commandsLog = func(l commands.Log) commands.Log { return l }
)

// programBegan is when by the monotonic clock, which nobody sets.
var programBegan = time.Now()

// followedKinds are the kinds of streams that the read models are about.
func followedKinds() []domain.Kind {
	return append(domain.Kinds(), domain.KindOrganization, domain.KindSigning)
}

// nodeOptions are what a node is told beside its log and its directory. The zero
// value limits nobody and tells nobody.
type nodeOptions struct {
	limits   httpapi.Limits
	broker   string    // the URL of the bus that is outside, "" for none
	observer *observer // nil for one that nobody asks
	apart    bool      // operators have a listener of their own
}

func newNode(l *log, dir *dataDir, o nodeOptions, logger zerolog.Logger) (*node, error) {
	seen := l.seen
	if seen.Log == "" {
		var err error
		if seen, err = begin(l.id); err != nil {
			return nil, err
		}
	}
	views, err := projections.Open(dir.file(viewsFile), projections.Origin{ID: l.id, Head: l.head, Log: l, Seen: seen}, l.keys, logger)
	if err != nil {
		return nil, badConfig("read models: %w", err)
	}
	n := &node{logger: logger, log: l, views: views, observer: o.observer}
	n.handler = commands.NewHandler(commandsLog(seenLog{l, views.Saw}), views, clock)
	n.handler.UseClock(l.clock)
	n.ahead = &aheadStreams{views: views}
	if n.observer == nil {
		n.observer = newObserver(nil)
	}
	n.handler.Observe(n.observer)
	n.bus = gochannel.NewGoChannel(gochannel.Config{
		// Without it messages overtake each other.
		BlockPublishUntilSubscriberAck: true,
	}, busLogger{logger})
	// The bus is for what happens from now on; the log has what happened.
	n.relay = relay.New(n.bus, views, l.head, logger)
	followers := []eventstore.Follower{observedViews{views, n}, n.relay}
	if o.broker != "" {
		if n.broker, err = natsbus.New(o.broker, logger, busLogger{logger}); err != nil {
			return nil, errors.Join(badConfig("LOTLINE_BUS: %w", err), views.Close())
		}
		n.sink = sink.New("bus", clockedLog{l.Log, l.clock}, n.broker, views, l.head, time.Now, logger)
		followers = append(followers, n.sink)
	}
	n.tail = eventstore.NewTail(l.Log, followedKinds(), l.head, logger, followers...)
	n.scheduler = scheduler.New(views, n.handler, clock, logger)
	n.scheduler.PauseWhile(l.clock.Usable)
	tokenKey, err := l.keys.Derive("http tokens v1")
	if err != nil {
		return nil, errors.Join(err, views.Close())
	}
	api := httpapi.Config{
		Commands: n.handler, Views: views, Histories: l, CaughtUp: n.caughtUp.Load, Ready: n.ready, TokenKey: tokenKey,
		Limits: o.limits, Clock: clock, Log: logger, Observer: n.observer, Metrics: n.observer.metrics.handler(),
	}
	if o.apart {
		n.operations = httpapi.Operations(api)
		api.Metrics = nil
	}
	n.api = httpapi.New(api)
	n.observer.metrics.measure(n)
	return n, nil
}

// catchUp follows the log and returns when the read models have reached the end
// that it had at the start. It reports false when ctx ended before.
func (n *node) catchUp(ctx context.Context) bool {
	for {
		err := n.views.Restore(ctx)
		if err == nil {
			break
		}
		n.logger.Warn().Err(err).Msg("who is in the queues is not known yet")
		select {
		case <-time.After(restoreAgain):
		case <-ctx.Done():
			return false
		}
	}
	n.stopSeen = start(func(ctx context.Context) {
		if err := n.views.KeepSeen(ctx); err != nil {
			n.logger.Error().Err(err).Msg("the newest event that was seen was not written")
		}
	})
	n.stopClock = start(func(ctx context.Context) { n.log.clock.Run(ctx, n.logger) })
	n.stopRelay = start(n.relay.Run)
	n.stopTail = start(n.tail.Run)
	report := time.NewTicker(progressEvery)
	defer report.Stop()
	for {
		select {
		case <-n.tail.CaughtUp():
			n.caughtUp.Store(true)
			n.keepViews()
			return n.awaitLive(ctx)
		case <-ctx.Done():
			return false
		case <-report.C:
			p := n.tail.Progress()
			n.logger.Info().Int64("events", p.Events).Int("percent", percent(p)).Time("up_to", p.UpTo).Msg("catching up with the log")
		}
	}
}

// liveWait is how long a start waits for the live subscription beside those that
// catch up. Servers before EventStoreDB 23.10 do not say that the log ends, so on an idle
// one nothing comes.
const liveWait = 2 * time.Second

// awaitLive waits for the live subscription, so that a node which says that it is
// ready is. It reports false when ctx ended before.
func (n *node) awaitLive(ctx context.Context) bool {
	wait := time.NewTimer(liveWait)
	defer wait.Stop()
	select {
	case <-n.tail.Live():
	case <-wait.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// restoreAgain is how long to wait for a store that could not be read.
const restoreAgain = time.Second

// progressEvery is how often a long catching-up says how far it is.
const progressEvery = 5 * time.Second

func percent(p eventstore.Progress) int { return int(100 * p.Share) }

// catchingUp is how far the read models are, for whoever asks when the node will
// be ready.
type catchingUp struct {
	Events  int64     `json:"events"`
	Percent int       `json:"percent"`
	UpTo    time.Time `json:"upTo,omitzero"`
}

// keepViews saves the read models from now on. While they catch up that would cost
// a third of the time, to spare those the rest who are killed before the end.
func (n *node) keepViews() {
	n.stopViews = start(func(ctx context.Context) {
		if err := n.views.Run(ctx); err != nil {
			n.logger.Error().Err(err).Msg("the read models were not saved")
		}
	})
}

// keepTime starts the timers, from the read models as they are now. When it
// returns it is known what is overdue.
func (n *node) keepTime() {
	n.scheduler.Begin()
	n.stopScheduler = start(n.scheduler.Run)
}

// sendOut sends to the broker, if there is one, what happens from now on and what is
// not sent yet.
func (n *node) sendOut() {
	if n.sink != nil {
		n.stopSink = start(n.sink.Run)
	}
}

// What a ready engine needs.
const (
	partClock       = "clock"
	partEventStore  = "eventStore"
	partProjections = "projections"
	partTimers      = "timers"
	partRestored    = "restored"
	partStreamTimes = "streamTimes" // advisory
)

var errOverdue = errors.New("what was overdue at the start is not done")

// ready names the parts that a ready engine needs, and what is wrong with them.
func (n *node) ready(ctx context.Context) []httpapi.Check {
	_, store := n.log.Head(ctx)
	if store == nil {
		store = n.handler.Health()
	}
	views := httpapi.Check{Name: partProjections}
	switch {
	case !n.caughtUp.Load():
		p := n.tail.Progress()
		views.Err = errors.New("catching up with the log")
		views.Reason = fmt.Sprintf("catching up with the log, %d %% done", percent(p))
		views.Detail = catchingUp{p.Events, percent(p), p.UpTo}
	case !n.tail.Connected():
		views.Err = errors.New("the log is not followed")
		views.Reason = views.Err.Error()
	}
	timers := errOverdue
	if n.scheduler.CaughtUp() {
		timers = nil
	}
	checks := []httpapi.Check{
		{Name: partClock, Err: n.log.clock.Err(), Reason: clockReason},
		{Name: partEventStore, Err: store, Reason: "it does not answer, or the last write to it failed"},
		views,
		{Name: partTimers, Err: timers, Reason: errOverdue.Error()},
		n.ahead.check(),
	}
	if n.log.restored != nil {
		checks = append(checks, httpapi.Check{Name: partRestored, Err: n.log.restored, Advisory: true})
	}
	if n.sink != nil {
		s := n.sink.State()
		// Whoever is sent elsewhere finds the same bus there.
		checks = append(checks, httpapi.Check{
			Name: "bus", Err: s.Err, Reason: "it does not take what is sent to it", Detail: sending{s.Sending, s.Messages, s.UpTo}, Advisory: true,
		})
	}
	return checks
}

// sending is what a node sends to the broker: nothing when another one does.
type sending struct {
	Sending  bool      `json:"sending"`
	Messages uint64    `json:"messages"`
	UpTo     time.Time `json:"upTo,omitzero"`
}

// commandsTimeout is how long commands may take at the end.
const commandsTimeout = 15 * time.Second

// shutDown stops the parts in the order in which they need each other, once
// nothing new comes in.
func (n *node) shutDown() error {
	stop(n.stopScheduler)
	ctx, cancel := context.WithTimeout(context.Background(), commandsTimeout)
	defer cancel()
	err := n.handler.Close(ctx)
	stop(n.stopClock)
	stop(n.stopTail)
	stop(n.stopRelay)
	stop(n.stopSink)
	err = errors.Join(err, n.bus.Close())
	if n.broker != nil {
		err = errors.Join(err, n.broker.Close())
	}
	stop(n.stopViews)
	stop(n.stopSeen)
	return errors.Join(err, n.views.Close())
}

// start runs f in the background. What it returns ends f's context and waits
// for f to return.
func start(f func(context.Context)) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func stop(f func()) {
	if f != nil {
		f()
	}
}
