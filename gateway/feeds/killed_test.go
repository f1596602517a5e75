package feeds

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"landfall/configs"
)

// killable is the network of a node that dies without a word: nothing passes any more, and nobody is told.
type killable struct {
	dead chan struct{}
}

func newKillable() *killable { return &killable{make(chan struct{})} }

func (k *killable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	select {
	case <-k.dead:
		<-ctx.Done()
		return nil, ctx.Err()
	default:
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &mortal{Conn: c, k: k, closed: make(chan struct{})}, nil
}

type mortal struct {
	net.Conn
	k      *killable
	once   sync.Once
	closed chan struct{}
}

// gone waits for the end where the node is dead.
func (m *mortal) gone() error {
	select {
	case <-m.k.dead:
		<-m.closed
		return net.ErrClosed
	default:
		return nil
	}
}

func (m *mortal) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if dead := m.gone(); dead != nil {
		return 0, dead
	}
	return n, err
}

func (m *mortal) Write(b []byte) (int, error) {
	select {
	case <-m.k.dead: // as into a machine that is gone: the kernel takes it, until it gives up
		return 0, os.ErrDeadlineExceeded
	default:
		return m.Conn.Write(b)
	}
}

func (m *mortal) Close() error {
	m.once.Do(func() { close(m.closed) })
	select {
	case <-m.k.dead: // the other side hears nothing of it, until the test ends
		return nil
	default:
		return m.Conn.Close()
	}
}

// killed is the story of a consumer that dies in the midst of its work: another, which stands for another region's, takes
// what the dead one had taken and not acknowledged, and all that comes.
func killed(t *testing.T, c configs.PurgeSource, publish func(string)) {
	all := configs.Purge{Sources: []configs.PurgeSource{c}}
	k := newKillable()
	one := newTakerBy(t, "n1", all, func(o *Options) { o.Dial, o.TakeOver = k.dial, time.Second })
	eventually(t, "the first consumes", one.connected)
	two := newTakerBy(t, "n2", all, func(o *Options) { o.TakeOver = time.Second })
	eventually(t, "both consume", func() bool { return one.connected() && two.connected() })
	count := 0
	more := func(enough func() bool) func() bool { // publishes one after the other, until it is enough
		return func() bool {
			publish(sku(count))
			count++
			return enough()
		}
	}
	eventually(t, "each has a share", more(func() bool { return len(one.keys()) > 0 && len(two.keys()) > 0 }))
	held := make(chan struct{})
	defer close(held)
	took := make(chan Purge, 10_000) // more than is published
	one.mu.Lock()
	one.fail = func(p Purge) error { // its purges hang, so none of what it takes from here on is acknowledged
		took <- p
		one.mu.Unlock()
		<-held
		one.mu.Lock()
		return context.Canceled
	}
	one.mu.Unlock()
	eventually(t, "the first takes more", more(func() bool { return len(took) > 0 }))
	close(k.dead)
	died := time.Now()
	for range 20 {
		publish(sku(count))
		count++
	}
	hung := (<-took).Keys[0]
	eventually(t, "the other takes all that was not acknowledged", func() bool {
		done := append(one.keys(), two.keys()...)
		for i := range count {
			if !slices.Contains(done, fmt.Sprint("sku-", i)) {
				return false
			}
		}
		return slices.Contains(two.keys(), hung)
	})
	t.Logf("taken over %s after the death", time.Since(died))
	eventually(t, "nothing is left", func() bool { return two.feeds.Status()[0].Lag == 0 })
	if got := testutil.ToFloat64(two.feeds.o.Metrics.events.WithLabelValues(c.Name(), purged)); got < float64(len(two.keys())) {
		t.Errorf("%v purges are counted, %d were made", got, len(two.keys()))
	}
}

func TestNATSConsumerIsKilled(t *testing.T) {
	t.Parallel()
	s, js := natsServer(t)
	c := configs.PurgeSource{NATS: configs.StringList{s.ClientURL()}, Stream: "CATALOG", Subject: "catalog.>", Durable: "landfall", Map: bySKU}
	killed(t, c, func(event string) {
		if _, err := js.Publish(t.Context(), "catalog.x", []byte(event)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestKafkaConsumerIsKilled(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "catalog-events"), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	producer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic("catalog-events"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	c := configs.PurgeSource{Kafka: cluster.ListenAddrs(), Topic: "catalog-events", Group: "landfall", Map: bySKU}
	killed(t, c, func(event string) {
		if err := producer.ProduceSync(t.Context(), &kgo.Record{Value: []byte(event)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLagMoves: events that wait are told as lag, by the status and the metric, until they are done.
func TestLagMoves(t *testing.T) {
	t.Parallel()
	s, js := natsServer(t)
	c := configs.PurgeSource{NATS: configs.StringList{s.ClientURL()}, Stream: "CATALOG", Subject: "catalog.>", Durable: "landfall", Map: bySKU}
	k := newTaker(t, "n1", configs.Purge{Sources: []configs.PurgeSource{c}})
	eventually(t, "it consumes", k.connected)
	k.mu.Lock()
	k.fail = func(Purge) error { return os.ErrPermission } // no purge is made durable
	k.mu.Unlock()
	for i := range 5 {
		if _, err := js.Publish(t.Context(), "catalog.x", []byte(sku(i))); err != nil {
			t.Fatal(err)
		}
	}
	lag := k.feeds.o.Metrics.lag.WithLabelValues(c.Name())
	eventually(t, "they wait", func() bool { return testutil.ToFloat64(lag) == 5 && k.feeds.Status()[0].Lag == 5 })
	k.mu.Lock()
	k.fail = nil
	k.mu.Unlock()
	eventually(t, "none waits", func() bool { return testutil.ToFloat64(lag) == 0 && len(k.keys()) == 5 })
}

// A partition that is another node's now is no part of this node's lag.
func TestKafkaLagsAreOfOwnPartitions(t *testing.T) {
	l := &kafkaLags{of: map[int32]int64{}}
	fetch := func(partition int32, last, high int64) kgo.Fetches {
		return kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "t", Partitions: []kgo.FetchPartition{{
			Partition: partition, HighWatermark: high, Records: []*kgo.Record{{Offset: last}},
		}}}}}}
	}
	if got := l.see(fetch(0, 9, 20)); got != 10 {
		t.Errorf("%d, want 10", got)
	}
	if got := l.see(fetch(1, 4, 10)); got != 15 {
		t.Errorf("%d, want 15", got)
	}
	l.drop(t.Context(), nil, map[string][]int32{"t": {0}})
	if got := l.see(nil); got != 5 {
		t.Errorf("%d, want 5", got)
	}
}

// What goes along with an event that was set aside is short and text.
func TestWhyIsShort(t *testing.T) {
	long := &net.DNSError{Err: strings.Repeat("ü", 1000)}
	if got := why(long); len(got) > maxWhy || !strings.HasPrefix(long.Error(), got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
