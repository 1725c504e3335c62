package main

import (
	"errors"
	"net/http"
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

// node is an engine while it runs.
type node struct {
	logger    zerolog.Logger
	log       *log
	views     *projections.Views
	handler   *commands.Handler
	bus       *gochannel.GoChannel
	relay     *relay.Relay
	broker    *natsbus.Bus // nil if none is configured
	sink      *sink.Sink   // sends to broker; nil without one
	tail      *eventstore.Tail
	scheduler *scheduler.Scheduler
	api       http.Handler
	observer  *observer
	caughtUp  atomic.Bool
	ahead     *aheadStreams
	// operations answers on the operators' own address. It is nil if they have none.
	operations http.Handler

	// Each of these stops one part. It is nil until the part runs.
	stopClock, stopViews, stopMark, stopRelay, stopTail, stopScheduler, stopSink func()
}

// The clock, and a wrapper around the log that commands use. Tests replace them with
// ones that fail.
var (
	clock       = time.Now
	elapsed     = func() time.Duration { return time.Since(programBegan) }
	commandsLog = func(l commands.Log) commands.Log { return l }
)

// programBegan is when the program started. Differences to it are measured by the
// monotonic clock, which nobody can set.
var programBegan = time.Now()

// followedKinds returns the kinds of streams that the read models hold.
func followedKinds() []domain.Kind {
	return append(domain.Kinds(), domain.KindOrganization, domain.KindSigning)
}

// nodeOptions configure a node beside its log and its directory. The zero value has
// no rate limits and no message broker.
type nodeOptions struct {
	limits             httpapi.Limits
	broker             string    // the URL of the message broker, "" for none
	observer           *observer // nil for a new one
	separateOperations bool      // operators have an address of their own
}

func newNode(l *log, dir *dataDir, o nodeOptions, logger zerolog.Logger) (*node, error) {
	mark := l.mark
	if mark.Log == "" {
		var err error
		if mark, err = firstMark(l.id); err != nil {
			return nil, err
		}
	}
	views, err := projections.Open(dir.file(viewsFile), projections.Origin{ID: l.id, Head: l.head, Log: l, Seen: mark}, l.keys, logger)
	if err != nil {
		return nil, badConfig("read models: %w", err)
	}
	n := &node{logger: logger, log: l, views: views, observer: o.observer}
	n.handler = commands.NewHandler(commandsLog(acknowledgingLog{l, views.Saw}), views, clock)
	n.handler.UseClock(l.clock)
	n.ahead = &aheadStreams{views: views}
	if n.observer == nil {
		n.observer = newObserver(nil)
	}
	n.handler.Observe(n.observer)
	n.bus = gochannel.NewGoChannel(gochannel.Config{
		// Without this, messages overtake each other.
		BlockPublishUntilSubscriberAck: true,
	}, busLogger{logger})
	// The relay publishes only events that are recorded from now on. Subscribers who want
	// earlier events read the log.
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
	if o.separateOperations {
		n.operations = httpapi.Operations(api)
		api.Metrics = nil
	}
	n.api = httpapi.New(api)
	n.observer.metrics.setNode(n)
	return n, nil
}
