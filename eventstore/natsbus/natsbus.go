// Package natsbus publishes on NATS JetStream, through Watermill. The subject of a message
// is its topic after "lotline.", for example lotline.queue. The data is a CloudEvent. The
// header Nats-Msg-Id is the message's ID: JetStream recognises repeated messages by it.
package natsbus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/eventstore/sink"
)

// Settings of the stream that the bus makes if no stream takes the messages.
const (
	Stream        = "LOTLINE"
	SubjectPrefix = "lotline."
	keptFor       = 30 * 24 * time.Hour
)

const (
	connectTimeout = 2 * time.Second
	reconnectWait  = 500 * time.Millisecond
	pingEvery      = 10 * time.Second
)

// Bus publishes to a NATS server or cluster. Only one goroutine may use it.
type Bus struct {
	servers   string
	log       zerolog.Logger
	watermill watermill.LoggerAdapter

	conn      *nats.Conn // nil before the first connection
	publisher *wmnats.Publisher
	missing   bool // no stream took the last message, so one has to be made
}

var _ sink.Bus = (*Bus)(nil)

// New returns the bus at an address: nats://[user:password@]host[:port][,host…], or the
// same with tls://. It does not connect yet.
func New(address string, log zerolog.Logger, watermill watermill.LoggerAdapter) (*Bus, error) {
	servers, err := parse(address)
	if err != nil {
		return nil, err
	}
	return &Bus{servers: strings.Join(servers, ","), log: log, watermill: watermill}, nil
}

// Check returns an error if an address is not valid. The error never shows the password.
func Check(address string) error {
	_, err := parse(address)
	return err
}

// parse splits an address into one address per server. A server without a scheme or a
// user gets that of the first server.
func parse(address string) ([]string, error) {
	var servers []string
	var first *url.URL
	for part := range strings.SplitSeq(address, ",") {
		if first != nil && !strings.Contains(part, "://") {
			part = first.Scheme + "://" + part
		}
		u, err := url.Parse(part)
		if err != nil {
			// The parser's error may show the password.
			return nil, errors.New("it cannot be parsed: is the password escaped as in a URL?")
		}
		if first == nil {
			first = u
		}
		if u.User == nil {
			u.User = first.User
		}
		if err := checkServer(u); err != nil {
			return nil, err
		}
		servers = append(servers, u.String())
	}
	return servers, nil
}

func checkServer(u *url.URL) error {
	if u.Scheme != "nats" && u.Scheme != "tls" {
		return errors.New("it does not begin with nats:// or tls://")
	}
	if u.Hostname() == "" {
		return errors.New("a host is missing")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%s is not a port", port)
		}
	}
	if u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("only a comma and another host may follow a host and its port")
	}
	return nil
}

// Ready returns nil if messages can be published now, and otherwise the reason why not. It
// connects if there is no connection. It makes the stream after it has connected, and
// again if no stream took the last message.
func (b *Bus) Ready(ctx context.Context) error {
	if b.conn == nil || b.conn.IsClosed() {
		if err := b.connect(ctx); err != nil {
			return fmt.Errorf("connect to the bus: %w", err)
		}
	}
	if !b.conn.IsConnected() {
		return errors.New("the connection to the bus is lost")
	}
	if b.missing {
		if err := b.makeStream(ctx); err != nil {
			return fmt.Errorf("make the stream %s: %w", Stream, err)
		}
		b.missing = false
	}
	return nil
}

func (b *Bus) connect(ctx context.Context) error {
	conn, err := nats.Connect(b.servers,
		nats.Name("lotline"),
		nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		// Without this option the client stops reconnecting to a server that has refused
		// the user twice.
		nats.IgnoreAuthErrorAbort(),
		// No buffer: a message that cannot be sent must not be sent later, after newer
		// ones.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingEvery),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn().Err(err).Msg("the connection to the bus is lost")
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { b.log.Info().Msg("the bus is connected again") }),
		// The default writes to stderr.
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.log.Warn().Err(err).Msg("the connection to the bus reports an error")
		}),
	)
	if err != nil {
		return err
	}
	publisher, err := wmnats.NewPublisherWithNatsConn(conn, wmnats.PublisherPublishConfig{
		Marshaler:         &wmnats.NATSMarshaler{},
		SubjectCalculator: wmnats.DefaultSubjectCalculator,
		JetStream: wmnats.JetStreamConfig{
			ConnectOptions: []nats.JSOpt{nats.MaxWait(sink.PublishTimeout)},
			TrackMsgId:     true,
		},
	}, b.watermill)
	if err != nil {
		conn.Close()
		return err
	}
	b.conn, b.publisher = conn, publisher
	if err := b.makeStream(ctx); err != nil {
		// Our user may lack the right to make streams. If the stream is missing,
		// publishing fails and says so.
		b.log.Warn().Err(err).Str("stream", Stream).Msg("the stream on the bus could not be made")
	}
	return nil
}

// makeStream makes the stream that takes the messages, unless one exists. It leaves the
// settings of an existing stream alone.
func (b *Bus) makeStream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sink.PublishTimeout)
	defer cancel()
	js, err := b.conn.JetStream()
	if err != nil {
		return err
	}
	_, err = js.AddStream(&nats.StreamConfig{
		Name:        Stream,
		Description: "What happened to Lotline's distributions, as CloudEvents",
		Subjects:    []string{SubjectPrefix + ">"},
		Storage:     nats.FileStorage,
		MaxAge:      keptFor,
	}, nats.Context(ctx))
	api, ok := errors.AsType[*nats.APIError](err)
	if errors.Is(err, nats.ErrStreamNameAlreadyInUse) || ok && api.ErrorCode == subjectsTaken {
		return nil
	}
	if err == nil {
		b.log.Info().Str("stream", Stream).Msg("the bus has a new stream")
	}
	return err
}

// Error codes of JetStream for which its client has no names.
const (
	tooLarge      = 10054 // the message is larger than the stream allows
	subjectsTaken = 10065 // another stream already takes these subjects
)

// Publish implements sink.Bus.
func (b *Bus) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		m.Metadata.Set("content-type", "application/cloudevents+json")
	}
	err := b.publisher.Publish(SubjectPrefix+topic, messages...)
	b.missing = errors.Is(err, nats.ErrNoStreamResponse)
	api, ok := errors.AsType[*nats.APIError](err)
	if errors.Is(err, nats.ErrMaxPayload) || ok && api.ErrorCode == tooLarge {
		return fmt.Errorf("%w: %w", sink.ErrTooLarge, err)
	}
	return err
}

// Close closes the connection.
func (b *Bus) Close() error {
	if b.conn != nil {
		b.conn.Close()
	}
	return nil
}
