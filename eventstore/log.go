package eventstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/goccy/go-json"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lotline/lotline/domain"
)

// Log is the event log in a server: EventStoreDB, KurrentDB or the embedded store. It is
// safe for concurrent use.
type Log struct {
	client *client
	codec  *codec
	keys   *Keyring
}

// Connect returns the log of the server that a connection string names, such as
// esdb://localhost:2113?tls=false. It returns at once: the first call on the log
// connects.
func Connect(connection string, keys *Keyring) (*Log, error) {
	return connect(connection, "", keys)
}

// ConnectSocket returns the log of an embedded server that listens on a Unix socket. path
// must be absolute.
func ConnectSocket(path string, keys *Keyring) (*Log, error) {
	return connect("esdb://localhost?tls=false", path, keys)
}

func connect(connection, socket string, keys *Keyring) (*Log, error) {
	c, err := dial(connection, socket)
	if err != nil {
		return nil, err
	}
	return &Log{c, newCodec(), keys}, nil
}

// Close closes the connection. Calls in flight return errors.
func (l *Log) Close() error { return l.client.close() }

// Encode returns e in the form in which Append takes it: with its stored name and schema
// version, and with its secrets sealed. The caller sets the ID. Encode also sets the
// sealed form of each secret in e itself.
func (l *Log) Encode(stream string, e domain.Event, m domain.Metadata) (domain.Proposed, error) {
	s, err := l.codec.schemaOf(domain.StreamKind(stream), e)
	if err != nil {
		return domain.Proposed{}, err
	}
	if holder, ok := e.(domain.SecretHolder); ok {
		for _, f := range holder.Secrets() {
			f.Value.Sealed = l.keys.Seal(stream, s.name, f.Name, f.Value.Plain)
		}
	}
	data, err := l.codec.encode(e)
	if err != nil {
		return domain.Proposed{}, err
	}
	m.SchemaVersion = s.version
	metadata, err := json.Marshal(m)
	if err != nil {
		return domain.Proposed{}, err
	}
	return domain.Proposed{Type: s.name, Data: data, Metadata: metadata}, nil
}

// Append writes all events to stream after head, or none of them. It returns the stream's
// new head and the log position of the last event. Its errors are:
//   - domain.ErrWrongRevision: the stream does not end at head, nothing was written;
//   - domain.ErrUnavailable: nothing was written;
//   - *domain.HistoryError: somebody deleted the stream;
//   - domain.ErrOutcomeUnknown: the events may or may not have been written.
func (l *Log) Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	if len(events) == 0 {
		return domain.Head{}, domain.Position{}, fmt.Errorf("append to %s: no events", stream)
	}
	after := head
	data := make([]esdb.EventData, len(events))
	for i, e := range events {
		after.Revision++
		after.Hash = domain.EventHash(e.ID, e.Type, stream, after.Revision, e.Data, e.Metadata, after.Hash)
		data[i] = esdb.EventData{
			EventID: e.ID, EventType: e.Type, ContentType: esdb.ContentTypeJson,
			Data: e.Data, Metadata: domain.WithHash(e.Metadata, after.Hash),
		}
	}
	// The client's default is "any revision", which would disable the check.
	options := esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}
	if head.Revision != domain.NoStream {
		options.ExpectedRevision = esdb.Revision(uint64(head.Revision))
	}
	var result *esdb.WriteResult
	err := l.client.do(ctx, func(ctx context.Context, c *esdb.Client) error {
		var err error
		result, err = c.AppendToStream(ctx, stream, options, data...)
		return err
	})
	if err != nil {
		return domain.Head{}, domain.Position{}, fmt.Errorf("append to %s: %w", stream, appendError(stream, head, err))
	}
	position := domain.Position{Commit: result.CommitPosition, Prepare: result.PreparePosition}
	// The client takes a response without content for a success. An append to a deleted
	// stream succeeds at a higher revision than the hashes were computed for.
	if result.NextExpectedVersion != uint64(after.Revision) || position == (domain.Position{}) {
		return domain.Head{}, domain.Position{}, fmt.Errorf("append to %s: %w: the store says it ends at revision %d, position %d, instead of revision %d",
			stream, domain.ErrOutcomeUnknown, result.NextExpectedVersion, position.Commit, after.Revision)
	}
	return after, position, nil
}

// appendError translates the client's error of an append. For most errors the client does
// not tell whether it had sent the request.
func appendError(stream string, head domain.Head, err error) error {
	e, ok := errors.AsType[*esdb.Error](err)
	switch {
	case ok && e.Code() == esdb.ErrorCodeWrongExpectedVersion:
		return fmt.Errorf("%w: %w", domain.ErrWrongRevision, err)
	case ok && e.Code() == esdb.ErrorCodeStreamDeleted:
		return deletedError(stream, head.Revision)
	case errors.Is(err, errNotSent), refusedForSize(err):
		return fmt.Errorf("%w: %w", domain.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", domain.ErrOutcomeUnknown, err)
}

// refusedForSize reports whether the server refused an append because its disk is full.
// gRPC uses the same code when a server resets a stream to slow the client down, and when
// a response is too large. Both can happen after the server wrote the events.
func refusedForSize(err error) bool {
	return status.Code(err) == codes.ResourceExhausted &&
		!strings.Contains(err.Error(), "RST_STREAM") && !strings.Contains(err.Error(), "grpc: received message larger than max")
}

// readAhead is how many events a read fetches ahead of the caller.
const readAhead = 256

// Read yields the events of stream after a revision, oldest first. It ends after the
// first error (domain.ErrUnavailable, or *domain.HistoryError if somebody deleted the
// stream). A stream that does not exist yields nothing. An event that cannot be decoded
// is yielded together with the reason.
func (l *Log) Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		events := make(chan *esdb.RecordedEvent, readAhead)
		done := make(chan error, 1)
		go func() {
			done <- l.client.do(ctx, func(ctx context.Context, c *esdb.Client) error { return receive(ctx, c, stream, after, events) })
		}()
		for {
			select {
			case e := <-events:
				if !yield(l.decode(e), nil) {
					return
				}
			case err := <-done:
				for len(events) > 0 {
					if !yield(l.decode(<-events), nil) {
						return
					}
				}
				if err != nil {
					yield(nil, readError(stream, after, err))
				}
				return
			}
		}
	}
}

// readError translates the client's error of a read. A deleted stream is not an outage:
// somebody removed a history.
func readError(stream string, after domain.Revision, err error) error {
	e, ok := errors.AsType[*esdb.Error](err)
	if ok && e.Code() == esdb.ErrorCodeStreamDeleted || streamNotFound(err) {
		return deletedError(stream, after)
	}
	return fmt.Errorf("read %s: %w: %w", stream, domain.ErrUnavailable, err)
}

// streamNotFound reports whether the store said that the stream does not exist. A proxy
// in front of the store may respond with "not found" for other reasons. The client gives
// both errors the same code, but only the proxy's has the gRPC status NotFound inside.
func streamNotFound(err error) bool {
	e, ok := errors.AsType[*esdb.Error](err)
	return ok && e.Code() == esdb.ErrorCodeResourceNotFound && status.Code(e.Err()) != codes.NotFound
}

func deletedError(stream string, after domain.Revision) error {
	return &domain.HistoryError{Stream: stream, Revision: after + 1, Rule: "a stream is never deleted", Detail: "the store says it was"}
}

func receive(ctx context.Context, c *esdb.Client, stream string, after domain.Revision, events chan<- *esdb.RecordedEvent) error {
	options := esdb.ReadStreamOptions{Direction: esdb.Forwards, From: esdb.Revision(uint64(after + 1))}
	// The client requires a count and has no value for "all".
	read, err := c.ReadStream(ctx, stream, options, math.MaxInt64)
	if err != nil {
		return err
	}
	defer read.Close()
	begun := false
	for {
		resolved, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if after == domain.NoStream && !begun && streamNotFound(err) {
				return nil
			}
			return err
		}
		begun = true
		select {
		case events <- resolved.OriginalEvent():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// decode converts the client's event into the domain's.
func (l *Log) decode(e *esdb.RecordedEvent) *domain.Recorded {
	r := &domain.Recorded{
		ID: e.EventID, Type: e.EventType, Stream: e.StreamID, Revision: domain.Revision(e.EventNumber),
		Position:   domain.Position{Commit: e.Position.Commit, Prepare: e.Position.Prepare},
		RecordedAt: e.CreatedDate, Data: e.Data, RawMetadata: e.UserMetadata,
	}
	r.Undecoded = json.Unmarshal(e.UserMetadata, &r.Metadata)
	if r.Undecoded != nil {
		r.Undecoded = fmt.Errorf("metadata: %w", r.Undecoded)
		return r
	}
	r.Event, r.Undecoded = l.codec.decode(schema{e.EventType, r.Metadata.SchemaVersion}, e.Data)
	if holder, ok := r.Event.(domain.SecretHolder); ok && r.Undecoded == nil {
		r.Undecoded = l.open(r, holder)
	}
	return r
}

func (l *Log) open(r *domain.Recorded, holder domain.SecretHolder) error {
	for _, f := range holder.Secrets() {
		plain, err := l.keys.Open(r.Stream, r.Type, f.Name, f.Value.Sealed)
		if err != nil {
			return fmt.Errorf("open %s: %w", f.Name, err)
		}
		f.Value.Plain = plain
	}
	return nil
}

// Head returns the position of the last event in the log, or the zero Position if the log
// is empty. Callers also use it to test whether the store responds.
func (l *Log) Head(ctx context.Context) (domain.Position, error) {
	var head domain.Position
	err := l.client.do(ctx, func(ctx context.Context, c *esdb.Client) error {
		read, err := c.ReadAll(ctx, esdb.ReadAllOptions{Direction: esdb.Backwards, From: esdb.End{}}, 1)
		if err != nil {
			return err
		}
		defer read.Close()
		resolved, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p := resolved.OriginalEvent().Position
		head = domain.Position{Commit: p.Commit, Prepare: p.Prepare}
		return nil
	})
	if err != nil {
		return domain.Position{}, fmt.Errorf("read the log's end: %w: %w", domain.ErrUnavailable, err)
	}
	return head, nil
}

// At returns the event at a log position. It returns nil if the position is zero or if no
// event begins there. It also finds events of streams that were deleted or truncated. Its
// error is domain.ErrUnavailable.
func (l *Log) At(ctx context.Context, p domain.Position) (*domain.Recorded, error) {
	var found *esdb.RecordedEvent
	err := l.client.do(ctx, func(ctx context.Context, c *esdb.Client) error {
		read, err := c.ReadAll(ctx, esdb.ReadAllOptions{Direction: esdb.Forwards, From: esdb.Position{Commit: p.Commit, Prepare: p.Prepare}}, 1)
		if err != nil {
			return err
		}
		defer read.Close()
		resolved, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		found = resolved.OriginalEvent()
		return nil
	})
	if status.Code(err) == codes.InvalidArgument {
		return nil, nil // the log has no such position
	}
	if err != nil {
		return nil, fmt.Errorf("read the log at position %d: %w: %w", p.Commit, domain.ErrUnavailable, err)
	}
	if found == nil || found.Position.Commit != p.Commit || found.Position.Prepare != p.Prepare {
		return nil, nil
	}
	return l.decode(found), nil
}

// Newest returns the last event of stream, or nil if the stream has none. Its error is
// domain.ErrUnavailable.
func (l *Log) Newest(ctx context.Context, stream string) (*domain.Recorded, error) {
	var newest *esdb.RecordedEvent
	err := l.client.do(ctx, func(ctx context.Context, c *esdb.Client) error {
		read, err := c.ReadStream(ctx, stream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}}, 1)
		if err != nil {
			return err
		}
		defer read.Close()
		resolved, err := read.Recv()
		if errors.Is(err, io.EOF) || streamNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		newest = resolved.OriginalEvent()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the end of %s: %w: %w", stream, domain.ErrUnavailable, err)
	}
	if newest == nil {
		return nil, nil
	}
	return l.decode(newest), nil
}

// KeepNewest limits stream to its n newest events: the store hides the others and may
// delete them when it is scavenged. It changes nothing if the stream already has
// metadata.
func (l *Log) KeepNewest(ctx context.Context, stream string, n uint64) error {
	var metadata esdb.StreamMetadata
	metadata.SetMaxCount(n)
	err := l.client.do(ctx, func(ctx context.Context, c *esdb.Client) error {
		_, err := c.SetStreamMetadata(ctx, stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, metadata)
		return err
	})
	if err == nil {
		return nil
	}
	if err = appendError(stream, domain.EmptyHead(), err); errors.Is(err, domain.ErrWrongRevision) {
		return nil
	}
	return fmt.Errorf("limit %s: %w", stream, err)
}

// subscriber receives the deliveries of a subscription.
type subscriber interface {
	event(*domain.Recorded)
	// passed is called when the subscription has read the log up to a position.
	passed(domain.Position)
	caughtUp()
}

// subscribe delivers the events after a position in streams of some kinds: first the
// existing events, then new ones. It returns when ctx ends or the subscription drops,
// with the reason.
func (l *Log) subscribe(ctx context.Context, after domain.Position, kinds []domain.Kind, to subscriber) error {
	// The client's default is to start at the end.
	var from esdb.AllPosition = esdb.Start{}
	if after != (domain.Position{}) {
		from = esdb.Position{Commit: after.Commit, Prepare: after.Prepare}
	}
	options := esdb.SubscribeToAllOptions{From: from, Filter: streamsOf(kinds), MaxSearchWindow: 1000}
	// One goroutine receives and decodes while another one delivers. In a single
	// goroutine, catching up would use one core only.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	received := make(chan delivery, readAhead)
	var err error
	go func() {
		defer close(received)
		err = l.client.subscribe(ctx, options, func(e *esdb.SubscriptionEvent) {
			select {
			case received <- l.deliveryOf(e):
			case <-ctx.Done():
			}
		})
	}()
	for d := range received {
		switch {
		case d.event != nil:
			to.event(d.event)
			if len(received) == 0 {
				// Followers that collect a batch stop waiting for more events.
				to.passed(d.event.Position)
			}
		case d.caughtUp:
			to.caughtUp()
		case d.passed != (domain.Position{}):
			to.passed(d.passed)
		}
	}
	return fmt.Errorf("subscription to the log: %w", err)
}

// delivery is one call to a subscriber: exactly one field is set.
type delivery struct {
	event    *domain.Recorded
	passed   domain.Position
	caughtUp bool
}

func (l *Log) deliveryOf(e *esdb.SubscriptionEvent) delivery {
	switch {
	case e.EventAppeared != nil:
		return delivery{event: l.decode(e.EventAppeared.OriginalEvent())}
	case e.CheckPointReached != nil:
		return delivery{passed: domain.Position{Commit: e.CheckPointReached.Commit, Prepare: e.CheckPointReached.Prepare}}
	}
	return delivery{caughtUp: e.CaughtUp != nil}
}

func streamsOf(kinds []domain.Kind) *esdb.SubscriptionFilter {
	filter := &esdb.SubscriptionFilter{Type: esdb.StreamFilterType}
	for _, k := range kinds {
		filter.Prefixes = append(filter.Prefixes, string(k)+"-")
	}
	return filter
}

// ErrMasterKey says that the secrets in the log were sealed under another master key.
var ErrMasterKey = errors.New("the log was sealed under another master key")

// sealCheck is the value that CheckMasterKey stores sealed in the log.
const sealCheck = "lotline"

// Sealed reports whether a master key was ever used with this log.
func (l *Log) Sealed(ctx context.Context) (bool, error) {
	for _, err := range l.Read(ctx, domain.SealStream, domain.NoStream) {
		return err == nil, err
	}
	return false, nil
}

// CheckMasterKey checks that the keyring has the master key of this log. The first node
// that calls it stores a sealed check value in the log, with the time now. It returns the
// ID of that event, which identifies the log. Its errors are ErrMasterKey for another
// master key and *domain.HistoryError for a damaged check value. After any other error
// the result is not known.
func (l *Log) CheckMasterKey(ctx context.Context, now time.Time) (logID string, err error) {
	// If another node was first, or the outcome of the append is unknown, read the stream
	// again.
	for attempt := 0; ; attempt++ {
		for r, err := range l.Read(ctx, domain.SealStream, domain.NoStream) {
			if err == nil {
				err = checkSeal(r)
			}
			if err != nil {
				return "", err
			}
			return uuid.UUID(r.ID).String(), nil
		}
		if attempt == checkAttempts {
			return "", fmt.Errorf("store the check value of the master key: %w", err)
		}
		err = l.putSealCheck(ctx, now)
	}
}

// checkSeal checks the first event of SealStream.
func checkSeal(r *domain.Recorded) error {
	stored := *r
	if errors.Is(r.Undecoded, errSealed) {
		// Under another master key no secret opens. The stored event itself may be
		// intact.
		stored.Undecoded = nil
	}
	if _, err := domain.EmptyHead().Next(domain.SealStream, &stored); err != nil {
		return err
	}
	if e, ok := r.Event.(*domain.SealChecked); !ok || r.Undecoded != nil || e.Value.Plain != sealCheck {
		return ErrMasterKey
	}
	return nil
}

const checkAttempts = 3

func (l *Log) putSealCheck(ctx context.Context, now time.Time) error {
	check := &domain.SealChecked{Stamp: domain.Stamp{At: domain.InstantOf(now)}, Value: domain.Secret{Plain: sealCheck}}
	id := uuid.New()
	m := domain.Metadata{
		CommandID: id.String(), CorrelationID: id.String(), CausationID: id.String(), Actor: domain.ActorOperator,
	}
	proposed, err := l.Encode(domain.SealStream, check, m)
	if err != nil {
		return err
	}
	proposed.ID = id
	_, _, err = l.Append(ctx, domain.SealStream, domain.EmptyHead(), []domain.Proposed{proposed})
	return err
}
