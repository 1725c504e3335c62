package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// catchUp follows the log and returns when the read models have reached the position
// at which the log ended at the start. It reports false if ctx ends first.
func (n *node) catchUp(ctx context.Context) bool {
	for {
		err := n.views.Restore(ctx)
		if err == nil {
			break
		}
		n.logger.Warn().Err(err).Msg("the participants of open distributions could not be read from the store")
		select {
		case <-time.After(restoreRetry):
		case <-ctx.Done():
			return false
		}
	}
	n.stopMark = start(func(ctx context.Context) {
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
			n.startSavingViews()
			return n.awaitLive(ctx)
		case <-ctx.Done():
			return false
		case <-report.C:
			p := n.tail.Progress()
			n.logger.Info().Int64("events", p.Events).Int("percent", percent(p)).Time("up_to", p.UpTo).Msg("catching up with the log")
		}
	}
}

// restoreRetry is the pause before the store is read again after a failure.
const restoreRetry = time.Second

// progressEvery is how often a long catch-up logs its progress.
const progressEvery = 5 * time.Second

// liveWait is how long a start waits for the live subscription after catching up.
// Servers before EventStoreDB 23.10 do not announce the end of the log, so an idle one
// sends nothing.
const liveWait = 2 * time.Second

// awaitLive waits until the live subscription runs, or for liveWait, so that a node
// does not report ready before it follows new events. It reports false if ctx ends
// first.
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

// startSavingViews saves the read models from now on. They are not saved while they
// catch up: it would take a third of that time, and help only a node that is killed
// before it has caught up.
func (n *node) startSavingViews() {
	n.stopViews = start(func(ctx context.Context) {
		if err := n.views.Run(ctx); err != nil {
			n.logger.Error().Err(err).Msg("the read models were not saved")
		}
	})
}

// startTimers starts the timers with the read models as they are now. When it returns,
// the scheduler knows what is overdue.
func (n *node) startTimers() {
	n.scheduler.Begin()
	n.stopScheduler = start(n.scheduler.Run)
}

// startSink starts sending to the broker, if there is one: first the events that are
// not sent yet, then new ones.
func (n *node) startSink() {
	if n.sink != nil {
		n.stopSink = start(n.sink.Run)
	}
}

// commandsTimeout is how long a shutdown waits for commands that are in flight.
const commandsTimeout = 15 * time.Second

// shutDown stops the parts, each before the parts that it depends on. The caller must
// have closed the listeners.
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
	stop(n.stopMark)
	return errors.Join(err, n.views.Close())
}

// start runs f in the background. The returned function ends f's context and waits
// until f returns.
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
