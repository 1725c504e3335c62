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
	Listen         string `env:"LOTLINE_LISTEN" default:":8080" placeholder:"HOST:PORT" help:"The address to serve HTTP on (${default})."`
	MetricsListen  string `env:"LOTLINE_METRICS_LISTEN" placeholder:"HOST:PORT" help:"A separate address for /metrics, and for /readyz with all details (none: /metrics is on the address of --listen)."`
	OTLPEndpoint   string `name:"otlp-endpoint" env:"LOTLINE_OTLP_ENDPOINT,OTEL_EXPORTER_OTLP_ENDPOINT" placeholder:"URL" help:"The OpenTelemetry collector to send spans to over HTTP, such as http://localhost:4318 (none: no spans)."`
	Bus            string `env:"LOTLINE_BUS" placeholder:"nats://…" help:"The NATS server or cluster, with JetStream, to publish all events on (none: events are not published outside the process)."`
	SecretKey      string `env:"LOTLINE_SECRET_KEY" placeholder:"sk_live_…" help:"A secret key for the organization default (none: the first start makes one and prints it)."`
	PublishableKey string `env:"LOTLINE_PUBLISHABLE_KEY" placeholder:"pk_live_…" help:"A publishable key for the organization default (none: the first start makes one and prints it)."`

	Restored bool `help:"Declare that the log was restored from a copy, or was replaced by another log. Give it for one start only: do not keep it in a service's configuration."`

	RateLimitSecret   int       `env:"LOTLINE_RATE_LIMIT_SECRET" default:"600000" placeholder:"N" help:"How many requests a minute an organization may make with its secret keys (${default}; 0: any number)."`
	RateLimitConsumer int       `env:"LOTLINE_RATE_LIMIT_CONSUMER" default:"600" placeholder:"N" help:"How many requests a minute a consumer may make with access tokens (${default}; 0: any number)."`
	RateLimitPublic   int       `env:"LOTLINE_RATE_LIMIT_PUBLIC" default:"60000" placeholder:"N" help:"How many requests a minute a client address may make without a secret key or an access token (${default}; 0: any number)."`
	TrustedProxies    []proxies `env:"LOTLINE_TRUSTED_PROXIES" placeholder:"CIDR" help:"The networks of proxies whose X-Forwarded-For header is believed, such as 10.0.0.0/8,fd00::/8."`
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
	if err := checkGivenKey("LOTLINE_SECRET_KEY", c.SecretKey, domain.SecretKey); err != nil {
		return err
	}
	return checkGivenKey("LOTLINE_PUBLISHABLE_KEY", c.PublishableKey, domain.PublishableKey)
}

func (c *serveCmd) limits() httpapi.Limits {
	l := httpapi.Limits{Secret: c.RateLimitSecret, Consumer: c.RateLimitConsumer, Public: c.RateLimitPublic}
	for _, n := range c.TrustedProxies {
		l.TrustedProxies = append(l.TrustedProxies, n.Prefix)
	}
	return l
}

// Run serves until ctx ends, and then shuts down in order.
func (c *serveCmd) Run(ctx context.Context, s *settings, to output) (err error) {
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
	ls, err := c.openListeners(ctx, newObserver(spans.tracer()), logger)
	if err != nil {
		return err
	}
	return c.runEngine(ctx, ls, s, dir, to.out)
}

// runEngine opens the log and runs a node on it, while the listeners are already open.
// When ctx ends it shuts everything down in order.
func (c *serveCmd) runEngine(ctx context.Context, ls *listeners, s *settings, dir *dataDir, out io.Writer) error {
	s.restored = c.Restored
	stopReports := reportWaiting(ls)
	l, err := openLogWith(ctx, s, dir, ls.logger, ls.clock, waitForRightClock)
	stopReports()
	if err != nil {
		return errors.Join(ignoreIfStopped(ctx, err), ls.close())
	}
	ls.foundLog.Store(true)
	n, err := newNode(l, dir, nodeOptions{
		limits:             c.limits(),
		broker:             c.Bus,
		observer:           ls.observer,
		separateOperations: ls.operations != nil,
	}, ls.logger)
	if err != nil {
		return errors.Join(err, ls.close(), l.Close())
	}
	ls.serveNode(n.api, n.operations)
	err = c.runNode(ctx, n, ls, out)
	asked := ctx.Err() != nil
	if asked {
		ls.logger.Info().Msg("stopping")
	}
	err = errors.Join(err, ls.close(), n.shutDown(), l.Close())
	if asked && err == nil {
		ls.logger.Info().Msg("stopped")
	}
	return err
}

// firstReport is how long a start waits for the store before it logs that it waits.
const firstReport = time.Second

// reportWaiting logs from time to time what the start waits for. The caller must call
// the returned function to end the reports.
func reportWaiting(ls *listeners) func() {
	began := time.Now()
	return start(func(ctx context.Context) {
		for pause := firstReport; ; pause = progressEvery {
			select {
			case <-time.After(pause):
				line, message := ls.logger.Warn().Int("seconds", int(time.Since(began).Seconds())), "waiting for the event store"
				if err := ls.clock.Usable(); isWrong(err) {
					line, message = line.Err(err), "waiting for the clock"
				}
				line.Msg(message)
			case <-ctx.Done():
				return
			}
		}
	})
}

// ignoreIfStopped returns err, but nil when ctx has ended: a start that is asked to
// stop before it is ready has not failed.
func ignoreIfStopped(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// runNode starts the parts of the node one after another, prints the banner, and
// waits until ctx ends or a part fails.
func (c *serveCmd) runNode(ctx context.Context, n *node, ls *listeners, out io.Writer) error {
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
	printBanner(out, ls.address, made)
	n.logger.Info().Stringer("address", ls.address).Msg("ready")
	select {
	case <-ctx.Done():
		return nil
	case err := <-ls.failed:
		return fmt.Errorf("serve HTTP: %w", err)
	case err := <-n.log.failed():
		return err
	}
}
