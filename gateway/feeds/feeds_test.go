package feeds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"landfall/configs"
)

// long bounds what must happen, in tests that would otherwise hang.
const long = 30 * time.Second

// taker is a node's Feeds with a Purger that notes what it is asked.
type taker struct {
	t     *testing.T
	feeds *Feeds
	reg   *prometheus.Registry
	stop  func()

	mu     sync.Mutex
	purges []Purge
	events []string
	fail   func(Purge) error
}

func newTaker(t *testing.T, node string, c configs.Purge) *taker {
	return newTakerBy(t, node, c, func(o *Options) { o.TakeOver = 6 * time.Second })
}

func newTakerBy(t *testing.T, node string, c configs.Purge, set func(*Options)) *taker {
	k := &taker{t: t, reg: prometheus.NewRegistry()}
	o := Options{
		Node: node, Purge: k.purge, Metrics: NewMetrics(k.reg), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Event: func(kind, subject, detail string) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.events = append(k.events, kind+" "+subject+": "+detail)
		},
	}
	set(&o)
	k.feeds = New(o)
	k.feeds.Set(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = k.feeds.Run(ctx) }()
	k.stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(k.stop)
	return k
}

func (k *taker) purge(_ context.Context, p Purge) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		if err := k.fail(p); err != nil {
			return err
		}
	}
	k.purges = append(k.purges, p)
	return nil
}

// keys are the surrogate keys that were purged, once each.
func (k *taker) keys() (out []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.purges {
		out = append(out, p.Keys...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (k *taker) heard(prefix string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.events, func(e string) bool { return strings.HasPrefix(e, prefix) })
}

func (k *taker) connected() bool {
	s := k.feeds.Status()
	return len(s) == 1 && s[0].Connected
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(long), time.NewTicker(5*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("did not happen: %s", what)
		case <-tick.C:
		}
	}
}

func sku(i int) string { return fmt.Sprintf(`{"sku": %d}`, i) }

var bySKU = configs.PurgeRule{Service: "shop", Keys: []string{"sku-{sku}"}}

// story is what both kinds of streams must do. publish puts an event into the stream; lose ends a taker without a word.
func story(t *testing.T, c configs.PurgeSource, publish func(string)) {
	all := configs.Purge{Sources: []configs.PurgeSource{c}}
	one, two := newTaker(t, "n1", all), newTaker(t, "n2", all)
	eventually(t, "both consume", func() bool { return one.connected() && two.connected() })
	has := func(n int) func() bool {
		return func() bool {
			keys := append(one.keys(), two.keys()...)
			slices.Sort(keys)
			return len(slices.Compact(keys)) == n
		}
	}
	for i := range 20 {
		publish(sku(i))
	}
	eventually(t, "each event is taken", has(20))
	// What can't be read is set aside, what names nothing is ignored, and neither holds the rest up.
	publish("no JSON")
	publish(`{"other": 1}`)
	refuse := func(p Purge) error {
		if p.Keys[0] == "sku-bad" {
			return fmt.Errorf("%w: no such host", ErrRefused)
		}
		return nil
	}
	for _, k := range []*taker{one, two} {
		k.mu.Lock()
		k.fail = refuse
		k.mu.Unlock()
	}
	publish(`{"sku": "bad"}`)
	publish(sku(20))
	eventually(t, "the event behind", has(21))
	eventually(t, "both poisons are counted", func() bool {
		a, b := one.feeds.Status()[0], two.feeds.Status()[0]
		return a.Poison+b.Poison == 2 && a.Ignored+b.Ignored == 1 && (one.heard("purge.poison") || two.heard("purge.poison"))
	})
	// What was not made durable comes again.
	tries := 0
	var mu sync.Mutex
	flaky := func(p Purge) error {
		mu.Lock()
		defer mu.Unlock()
		if tries++; tries < 3 {
			return errors.New("the disk is full")
		}
		return nil
	}
	for _, k := range []*taker{one, two} {
		k.mu.Lock()
		k.fail = flaky
		k.mu.Unlock()
	}
	publish(sku(21))
	eventually(t, "the event comes again", has(22))
	// The other takes it all once one has gone.
	one.stop()
	for i := 22; i < 40; i++ {
		publish(sku(i))
	}
	eventually(t, "the survivor takes the rest", has(40))
	eventually(t, "nothing is left", func() bool { return two.feeds.Status()[0].Lag == 0 })
	// A new node finds nothing that was acknowledged.
	three := newTaker(t, "n3", all)
	eventually(t, "the third consumes", three.connected)
	publish(sku(99))
	eventually(t, "one of them takes the next", func() bool { return slices.Contains(append(two.keys(), three.keys()...), "sku-99") })
	if got := three.keys(); len(got) > 1 {
		t.Errorf("acknowledged events came again: %v", got)
	}
	// A source that is no longer wanted ends.
	three.feeds.Set(configs.Purge{})
	if got := three.feeds.Status(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func natsServer(t *testing.T) (*server.Server, jetstream.JetStream) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(long) {
		t.Fatal("NATS did not start")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for name, subject := range map[string]string{"CATALOG": "catalog.>", "POISON": "poison"} {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subject}}); err != nil {
			t.Fatal(err)
		}
	}
	return s, js
}

func TestNATS(t *testing.T) {
	t.Parallel()
	s, js := natsServer(t)
	c := configs.PurgeSource{NATS: configs.StringList{s.ClientURL()}, Stream: "CATALOG", Subject: "catalog.shop.>", Durable: "landfall", Poison: "poison", Map: bySKU}
	publish := func(event string) {
		for _, subject := range []string{"catalog.shop.x", "catalog.other.x"} { // the other is not asked for
			if _, err := js.Publish(t.Context(), subject, []byte(event)); err != nil {
				t.Fatal(err)
			}
		}
	}
	story(t, c, publish)
	eventually(t, "the poison is copied", func() bool {
		stream, err := js.Stream(t.Context(), "POISON")
		if err != nil {
			return false
		}
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs == 2
	})
}

func TestKafka(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "catalog-events"), kfake.SeedTopics(1, "poison"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	producer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic("catalog-events"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	c := configs.PurgeSource{Kafka: cluster.ListenAddrs(), Topic: "catalog-events", Group: "landfall", Poison: "poison", Map: bySKU}
	publish := func(event string) {
		if err := producer.ProduceSync(t.Context(), &kgo.Record{Value: []byte(event)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// What came before the group's first commit is taken too, in all partitions.
	const early = 8
	for i := range early {
		publish(fmt.Sprintf(`{"sku": "early-%d"}`, i))
	}
	probe := newTaker(t, "n0", configs.Purge{Sources: []configs.PurgeSource{c}})
	eventually(t, "what came early is taken", func() bool { return len(probe.keys()) == early })
	probe.stop()
	story(t, c, publish)
}

// A stream that can't be reached is said so once, and comes to life when it can.
func TestUnreachableSource(t *testing.T) {
	k := newTaker(t, "n1", configs.Purge{Sources: []configs.PurgeSource{{NATS: configs.StringList{"nats://127.0.0.1:1"}, Stream: "S", Durable: "d", Map: bySKU}}})
	eventually(t, "the failure is told", func() bool { return k.heard("purge.source-failed nats/S/d: connect to NATS") })
	if s := k.feeds.Status()[0]; s.Connected || s.Error == "" {
		t.Errorf("%+v", s)
	}
}
