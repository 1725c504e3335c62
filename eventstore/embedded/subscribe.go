package embedded

import (
	"errors"
	"math"

	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (c *readCall) subscribeToStream(stream string, options *streamspb.ReadReq_Options_StreamOptions) error {
	watcher, stop := c.store.hub.watch(stream)
	defer stop()
	state, err := c.store.state(c.Context(), stream)
	if err != nil {
		return err
	}
	next := int64(0)
	switch from := options.GetRevisionOption().(type) {
	case *streamspb.ReadReq_Options_StreamOptions_Revision:
		next = after(clamp(from.Revision))
	case *streamspb.ReadReq_Options_StreamOptions_Start:
	case *streamspb.ReadReq_Options_StreamOptions_End:
		next = after(state.last)
	default:
		return status.Error(codes.InvalidArgument, "the subscription has no start")
	}
	// As on a real server, a live subscriber gets every new event. An event is sent even
	// if the stream's metadata hides it by then.
	live := false
	return c.follow(watcher, func() (bool, error) {
		var p page
		var err error
		if live {
			p, err = c.store.readLive(c.Context(), stream, next, c.resolve)
		} else {
			p, err = c.store.readStream(c.Context(), stream, next, false, c.resolve, math.MaxInt64)
		}
		if errors.Is(err, errNoStream) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if p.considered > 0 {
			next = after(p.last)
		}
		if last := len(p.events) - 1; last >= 0 && p.events[last].revision == tombstoneRevision {
			return true, errors.Join(c.sendEvents(p.events[:last]), &deletedError{stream: stream})
		}
		return p.complete, c.sendEvents(p.events)
	}, func() error {
		// The stream ended at state.last when the subscription began. Any event up to
		// there that was not sent is hidden, so it is skipped.
		live, next = true, max(next, after(state.last))
		return nil
	})
}

func (c *readCall) subscribeToAll(options *streamspb.ReadReq_Options_AllOptions, matching *filter, filterOptions *streamspb.ReadReq_Options_FilterOptions) error {
	watcher, stop := c.store.hub.watch("")
	defer stop()
	var last int64 // position of the last event considered
	switch from := options.GetAllOption().(type) {
	case *streamspb.ReadReq_Options_AllOptions_Position:
		var err error
		if last, err = positionOf(from.Position); err != nil {
			return err
		}
	case *streamspb.ReadReq_Options_AllOptions_Start:
	case *streamspb.ReadReq_Options_AllOptions_End:
		var err error
		if last, err = c.store.lastPosition(c.Context()); err != nil {
			return err
		}
	default:
		return status.Error(codes.InvalidArgument, "the subscription has no start")
	}
	interval := int64(math.MaxInt64)
	if matching != nil {
		var err error
		if interval, err = checkpointInterval(filterOptions); err != nil {
			return err
		}
	}
	untilCheckpoint := interval
	checkpoint := func() error {
		if matching == nil {
			return nil
		}
		untilCheckpoint = interval
		return c.Send(&streamspb.ReadResp{Content: &streamspb.ReadResp_Checkpoint_{
			Checkpoint: &streamspb.ReadResp_Checkpoint{CommitPosition: uint64(last), PreparePosition: uint64(last)},
		}})
	}
	return c.follow(watcher, func() (bool, error) {
		// A page ends where the next checkpoint is due.
		p, fresh := c.store.tail.read(after(last), c.resolve, matching, untilCheckpoint)
		if !fresh {
			var err error
			p, err = c.store.readAll(c.Context(), after(last), false, c.resolve, matching, math.MaxInt64, untilCheckpoint)
			if err != nil {
				return false, err
			}
		}
		if err := c.sendEvents(p.events); err != nil {
			return false, err
		}
		if p.considered > 0 {
			last = p.last
		}
		if untilCheckpoint -= int64(p.considered); untilCheckpoint <= 0 {
			return p.complete, checkpoint()
		}
		return p.complete, nil
	}, checkpoint)
}

// after returns the revision or position after place. Nothing comes after the highest.
func after(place int64) int64 {
	if place == math.MaxInt64 {
		return place
	}
	return place + 1
}

// follow sends the existing events and then new ones, until the client disconnects or the
// server closes. send sends the next page and reports whether it was the last one for
// now. caughtUp is called once, the first time that happens.
func (c *readCall) follow(w *watcher, send func() (bool, error), caughtUp func() error) error {
	err := c.Send(&streamspb.ReadResp{Content: &streamspb.ReadResp_Confirmation{
		Confirmation: &streamspb.ReadResp_SubscriptionConfirmation{SubscriptionId: uuid.NewString()},
	}})
	if err != nil {
		return err
	}
	live := false
	for {
		complete, err := send()
		if err != nil {
			return err
		}
		if !complete {
			if err := c.checkClosing(); err != nil {
				return err
			}
			continue
		}
		if !live {
			live = true
			if err := caughtUp(); err != nil {
				return err
			}
			err := c.Send(&streamspb.ReadResp{Content: &streamspb.ReadResp_CaughtUp_{CaughtUp: &streamspb.ReadResp_CaughtUp{}}})
			if err != nil {
				return err
			}
		}
		select {
		case <-w.signal:
		case <-c.Context().Done():
			return c.Context().Err()
		case <-c.closing:
			return closingStatus()
		}
	}
}
