package feeds

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

const (
	kafkaPoll    = 2 * time.Second
	kafkaAgain   = 500 * time.Millisecond
	kafkaSession = 10 * time.Second // after which a silent node's partitions go to the others
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
	options := []kgo.Opt{
		kgo.SeedBrokers(s.c.Kafka...), kgo.ConsumerGroup(s.c.Group), kgo.ConsumeTopics(s.c.Topic), kgo.ClientID("landfall-" + s.f.o.Node),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(kafkaSession), kgo.RebalanceTimeout(2 * kafkaSession),
		kgo.ConsumeStartOffset(kgo.NewOffset().AfterMilli(s.f.o.Now().Add(-kafkaBack).UnixMilli())),
	}
	if secure != nil {
		options = append(options, kgo.DialTLSConfig(secure))
	}
	if s.c.User != "" {
		options = append(options, kgo.SASL(plain.Auth{User: s.c.User, Pass: s.c.Password}.AsMechanism()))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	if err := client.Ping(ctx); err != nil {
		return fmt.Errorf("reach the brokers: %w", err)
	}
	lags := map[int32]int64{} // by partition
	for ctx.Err() == nil {
		if err := s.pollKafka(ctx, client, lags); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) pollKafka(ctx context.Context, client *kgo.Client, lags map[int32]int64) error {
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
		return ctx.Err()
	}
	if len(records) > 0 {
		if err := client.CommitRecords(context.WithoutCancel(ctx), records...); err != nil {
			return fmt.Errorf("commit: %w", err) // they come again
		}
	}
	s.works(lagOf(fetches, lags))
	return nil
}

// carryOutAll repeats what fails until nothing does, ctx ends, or the group would take the partitions away; it returns how
// many are left.
func (s *source) carryOutAll(ctx context.Context, client *kgo.Client, records []*kgo.Record) (left int) {
	open := records
	for {
		var mu sync.Mutex
		var again []*kgo.Record
		batch := make([]message, len(open))
		for i, r := range open {
			batch[i] = message{
				data: r.Value, at: fmt.Sprintf("%d of partition %d", r.Offset, r.Partition),
				nack: func() { mu.Lock(); again = append(again, r); mu.Unlock() },
				ack:  func(aside error) { s.setAside(ctx, client, r, aside) },
			}
		}
		s.handle(ctx, batch)
		if open = again; len(open) == 0 || ctx.Err() != nil {
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

func (s *source) setAside(ctx context.Context, client *kgo.Client, r *kgo.Record, why error) {
	if why == nil || s.c.Poison == "" {
		return
	}
	out := &kgo.Record{Topic: s.c.Poison, Key: r.Key, Value: r.Value, Headers: append(r.Headers, kgo.RecordHeader{Key: "landfall-error", Value: []byte(why.Error())})}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := client.ProduceSync(ctx, out).FirstErr(); err != nil {
		s.f.o.Logger.Warn("a poison event could not be copied", "source", s.c.Name(), "topic", s.c.Poison, "error", err)
	}
}

// lagOf is how many records the partitions of the last polls had that were not taken.
func lagOf(fetches kgo.Fetches, lags map[int32]int64) (total int64) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		lag := int64(0)
		if n := len(p.Records); n > 0 {
			lag = p.HighWatermark - p.Records[n-1].Offset - 1
		}
		lags[p.Partition] = max(lag, 0)
	})
	for _, lag := range lags {
		total += lag
	}
	return total
}
