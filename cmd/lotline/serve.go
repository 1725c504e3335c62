package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore/natsbus"
	"github.com/lotline/lotline/httpapi"
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
	d, err := c.openListeners(ctx, newObserver(spans.tracer()), logger)
	if err != nil {
		return err
	}
	return c.runEngine(ctx, d, s, dir, to.out)
}

// runBehind brings up, behind an open door, all that it leads to, and shuts it
// down in order when ctx ends.
func (c *serveCmd) runEngine(ctx context.Context, d *listeners, s *settings, dir *dataDir, out io.Writer) error {
	s.restored = c.Restored
	found := reportWaiting(d)
	l, err := openLogWith(ctx, s, dir, d.logger, d.clock, waitForRightClock)
	found()
	if err != nil {
		return errors.Join(ignoreIfStopped(ctx, err), d.close())
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
	d.serveNode(n.api, n.operations)
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
func reportWaiting(d *listeners) func() {
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
func ignoreIfStopped(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// runNode brings the node up and waits for the end.
func (c *serveCmd) runNode(ctx context.Context, n *node, d *listeners, out io.Writer) error {
	if !n.catchUp(ctx) {
		return nil
	}
	made, err := c.provision(ctx, n, out)
	if broken, ok := errors.AsType[*domain.HistoryError](err); ok {
		n.logger.Warn().Str("stream", broken.Stream).Msg("no keys were set up: the history of the organization default is inconsistent")
		made, err = nil, nil
	}
	if err != nil {
		return ignoreIfStopped(ctx, fmt.Errorf("set up keys and the organization %s: %w", defaultOrganization, err))
	}
	n.startTimers()
	n.startSink()
	if n.log.embedded != nil {
		n.log.embedded.printAddress(out)
	}
	printBanner(out, d.address, made)
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
