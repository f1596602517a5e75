package feeds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

const (
	kafkaPoll  = 2 * time.Second
	kafkaAgain = 500 * time.Millisecond
	// kafkaAnswer is how long a broker may take for an answer, at most, beside what it was asked to wait.
	kafkaAnswer = 10 * time.Second
	// Bounds of what is held in memory: fetched, and on its way to the topic for poison.
	kafkaFetch     = 8 << 20
	kafkaPartition = 1 << 20
	kafkaAside     = 16 << 20
	// kafkaBack is how far back a partition begins of which the group has committed nothing. Not at its end: an event that
	// comes before the first commit would be lost whenever the partition moves to another node. Purging twice does no harm.
	kafkaBack = time.Hour
)

// consumeKafka consumes a topic in a consumer group that all nodes are of. Offsets are committed once the purges of all
// records before them are durable.
func (s *source) consumeKafka(ctx context.Context) error {
	secure, err := tlsConfig(s.c)
	if err != nil {
		return err
	}
	lags := &kafkaLags{of: map[int32]int64{}}
	options := []kgo.Opt{
		kgo.SeedBrokers(s.c.Kafka...), kgo.ConsumerGroup(s.c.Group), kgo.ConsumeTopics(s.c.Topic), kgo.ClientID("landfall-" + s.f.o.Node),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(s.f.o.TakeOver), kgo.RebalanceTimeout(2 * s.f.o.TakeOver),
		kgo.HeartbeatInterval(s.f.o.TakeOver / 5), kgo.OnPartitionsRevoked(lags.drop), kgo.OnPartitionsLost(lags.drop),
		kgo.FetchMaxBytes(kafkaFetch), kgo.FetchMaxPartitionBytes(kafkaPartition), kgo.MaxBufferedRecords(batchSize), kgo.MaxBufferedBytes(kafkaAside),
		kgo.Dialer(s.dialKafka(secure)), kgo.RequestTimeoutOverhead(min(kafkaAnswer, s.f.o.TakeOver)), kgo.RetryTimeout(s.f.o.TakeOver),
		kgo.ConsumeStartOffset(kgo.NewOffset().AfterMilli(s.f.o.Now().Add(-kafkaBack).UnixMilli())),
	}
	if s.c.User != "" {
		options = append(options, kgo.SASL(plain.Auth{User: s.c.User, Pass: s.c.Password}.AsMechanism()))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer s.leave(client)
	if err := client.Ping(ctx); err != nil {
		return fmt.Errorf("reach the brokers: %w", err)
	}
	for ctx.Err() == nil {
		if err := s.pollKafka(ctx, client, lags); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) pollKafka(ctx context.Context, client *kgo.Client, lags *kafkaLags) error {
	wait, cancel := context.WithTimeout(ctx, kafkaPoll)
	fetches := client.PollRecords(wait, batchSize)
	cancel()
	defer client.AllowRebalance()
	if fetches.IsClientClosed() {
		return errors.New("the client was closed")
	}
	var failure error
	fetches.EachError(func(_ string, _ int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			failure = err
		}
	})
	if failure != nil {
		return fmt.Errorf("fetch events: %w", failure)
	}
	records := fetches.Records()
	// The partitions are this node's until AllowRebalance, so what fails is tried again here: records after it must not be
	// committed before it.
	if left := s.carryOutAll(ctx, client, records); left > 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%d purges could not be made durable within %s", left, s.patience())
	}
	if len(records) > 0 {
		commit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.ackWait())
		err := client.CommitRecords(commit, records...)
		cancel()
		if err != nil {
			return fmt.Errorf("commit: %w", err) // they come again
		}
	}
	s.works(lags.see(fetches))
	return nil
}

// patience is how long a batch whose purges fail is tried again before the partitions are let go: the group gives them to
// another node, or back, from what was committed.
func (s *source) patience() time.Duration { return s.f.o.TakeOver * 2 / 3 }

// leave ends a client. Brokers that don't answer are not waited for for long: the group finds out by itself.
func (s *source) leave(client *kgo.Client) {
	client.AllowRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), s.ackWait())
	defer cancel()
	_ = client.LeaveGroupContext(ctx) // Close would wait for it as long as it is tried again
	client.Close()
}

// carryOutAll repeats what fails until nothing does, ctx ends, or patience does; it returns how many are left.
func (s *source) carryOutAll(ctx context.Context, client *kgo.Client, records []*kgo.Record) (left int) {
	open := records
	patience := s.f.o.Now().Add(s.patience())
	aside, cancel := context.WithTimeout(ctx, s.ackWait()) // for all of the batch: the group waits
	defer cancel()
	for {
		var mu sync.Mutex
		var again []*kgo.Record
		batch := make([]message, len(open))
		for i, r := range open {
			batch[i] = message{
				data: r.Value, at: fmt.Sprintf("%d of partition %d", r.Offset, r.Partition),
				nack: func() { mu.Lock(); again = append(again, r); mu.Unlock() },
				ack:  func(err error) { s.setAside(aside, client, r, err) },
			}
		}
		s.handle(ctx, batch)
		if open = again; len(open) == 0 || ctx.Err() != nil || !s.f.o.Now().Before(patience) {
			return len(open)
		}
		timer := time.NewTimer(kafkaAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return len(open)
		}
	}
}

func (s *source) setAside(ctx context.Context, client *kgo.Client, r *kgo.Record, err error) {
	if err == nil || s.c.Poison == "" {
		return
	}
	headers := append(slices.Clip(r.Headers), kgo.RecordHeader{Key: "landfall-error", Value: []byte(why(err))})
	out := &kgo.Record{Topic: s.c.Poison, Key: r.Key, Value: r.Value, Headers: headers}
	if err := client.ProduceSync(ctx, out).FirstErr(); err != nil {
		s.f.o.Logger.Warn("a poison event could not be copied", "source", s.c.Name(), "topic", s.c.Poison, "error", err)
	}
}

// dialKafka opens connections to brokers.
func (s *source) dialKafka(secure *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectWait)
		defer cancel()
		c, err := s.f.o.Dial(ctx, network, addr)
		if err != nil || secure == nil {
			return c, err
		}
		config := secure.Clone()
		if config.ServerName, _, err = net.SplitHostPort(addr); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		t := tls.Client(c, config)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return t, nil
	}
}

// kafkaLags is how many records each partition of this node's share had, at the last poll, that were not taken. Safe for
// concurrent use: the group takes partitions away from its own goroutine.
type kafkaLags struct {
	mu sync.Mutex
	of map[int32]int64
}

// see enters what a poll brought, and returns the whole lag.
func (l *kafkaLags) see(fetches kgo.Fetches) (total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		lag := int64(0)
		if n := len(p.Records); n > 0 {
			lag = p.HighWatermark - p.Records[n-1].Offset - 1
		}
		l.of[p.Partition] = max(lag, 0)
	})
	for _, lag := range l.of {
		total += lag
	}
	return total
}

// drop forgets partitions that are another node's now.
func (l *kafkaLags) drop(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, partitions := range gone {
		for _, p := range partitions {
			delete(l.of, p)
		}
	}
}
