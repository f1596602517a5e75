package feeds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	natsPoll  = 2 * time.Second
	natsAgain = time.Second // before an event that failed comes again
)

// dialer is Options.Dial as nats.go wants it.
type dialer struct {
	ctx context.Context
	o   Options
}

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, connectWait)
	defer cancel()
	return d.o.Dial(ctx, network, addr)
}

// consumeNATS consumes a JetStream stream by a durable pull consumer that all nodes share.
func (s *source) consumeNATS(ctx context.Context) error {
	secure, err := tlsConfig(s.c)
	if err != nil {
		return err
	}
	options := []nats.Option{nats.Name("landfall " + s.f.o.Node), nats.MaxReconnects(-1), nats.Timeout(connectWait), nats.SetCustomDialer(dialer{ctx, s.f.o})}
	if secure != nil {
		options = append(options, nats.Secure(secure))
	}
	if s.c.User != "" {
		options = append(options, nats.UserInfo(s.c.User, s.c.Password))
	}
	nc, err := nats.Connect(strings.Join(s.c.NATS, ","), options...)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	consumer, err := s.durable(ctx, js)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		info, err := consumer.Info(ctx)
		if err != nil {
			return fmt.Errorf("ask for the consumer %s: %w", s.c.Durable, err)
		}
		s.works(int64(info.NumPending) + int64(info.NumAckPending))
		if err := s.fetchNATS(ctx, nc, consumer); err != nil {
			return err
		}
	}
	return nil
}

// durable finds or makes the consumer.
func (s *source) durable(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	consumer, err := js.Consumer(ctx, s.c.Stream, s.c.Durable)
	if err == nil {
		return consumer, nil
	}
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("the stream %s: %w", s.c.Stream, err)
	}
	consumer, err = js.CreateOrUpdateConsumer(ctx, s.c.Stream, jetstream.ConsumerConfig{
		Durable: s.c.Durable, FilterSubject: s.c.Subject, AckPolicy: jetstream.AckExplicitPolicy, AckWait: s.f.o.TakeOver,
		DeliverPolicy: jetstream.DeliverNewPolicy, MaxAckPending: 8 * batchSize, Description: "purges of landfall",
	})
	if err != nil {
		return nil, fmt.Errorf("make the durable consumer %s of the stream %s: %w", s.c.Durable, s.c.Stream, err)
	}
	return consumer, nil
}

// fetchNATS takes and carries out what there is, up to a batch. The first event of a pause is waited for, so that it does
// not wait itself.
func (s *source) fetchNATS(ctx context.Context, nc *nats.Conn, consumer jetstream.Consumer) error {
	first, err := consumer.Fetch(1, jetstream.FetchMaxWait(natsPoll))
	if err != nil {
		return fmt.Errorf("fetch events: %w", err)
	}
	var batch []message
	take := func(from jetstream.MessageBatch) error {
		for m := range from.Messages() {
			batch = append(batch, s.natsMessage(ctx, nc, m))
		}
		if err := from.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) {
			return fmt.Errorf("fetch events: %w", err)
		}
		return nil
	}
	if err := take(first); err != nil || len(batch) == 0 {
		return err
	}
	more, err := consumer.FetchNoWait(batchSize - 1)
	if err == nil {
		err = take(more)
	}
	s.handle(ctx, batch)
	return err
}

func (s *source) natsMessage(ctx context.Context, nc *nats.Conn, m jetstream.Msg) message {
	at := m.Subject()
	if meta, err := m.Metadata(); err == nil {
		at = fmt.Sprintf("%d (%s)", meta.Sequence.Stream, m.Subject())
	}
	return message{
		data: m.Data(), at: at,
		nack: func() { _ = m.NakWithDelay(natsAgain) }, // unheard, it comes again after TakeOver
		ack: func(aside error) {
			var err error
			switch {
			case aside == nil:
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.ackWait())
				defer cancel()
				err = m.DoubleAck(ctx)
			case s.c.Poison == "":
				err = m.TermWithReason(why(aside))
			default:
				if err = nc.PublishMsg(&nats.Msg{Subject: s.c.Poison, Data: m.Data(), Header: nats.Header{"Landfall-Error": {why(aside)}}}); err == nil {
					err = m.TermWithReason(why(aside))
				}
			}
			if err != nil { // it comes again, and purging twice does no harm
				s.f.o.Logger.Warn("an event was not acknowledged", "source", s.c.Name(), "event", at, "error", err)
			}
		},
	}
}
