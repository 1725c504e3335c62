package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

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

// restoreAgain is how long to wait for a store that could not be read.
const restoreRetry = time.Second

// progressEvery is how often a long catching-up says how far it is.
const progressEvery = 5 * time.Second

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

// keepViews saves the read models from now on. While they catch up that would cost
// a third of the time, to spare those the rest who are killed before the end.
func (n *node) startSavingViews() {
	n.stopViews = start(func(ctx context.Context) {
		if err := n.views.Run(ctx); err != nil {
			n.logger.Error().Err(err).Msg("the read models were not saved")
		}
	})
}

// keepTime starts the timers, from the read models as they are now. When it
// returns it is known what is overdue.
func (n *node) startTimers() {
	n.scheduler.Begin()
	n.stopScheduler = start(n.scheduler.Run)
}

// sendOut sends to the broker, if there is one, what happens from now on and what is
// not sent yet.
func (n *node) startSink() {
	if n.sink != nil {
		n.stopSink = start(n.sink.Run)
	}
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
	stop(n.stopMark)
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
