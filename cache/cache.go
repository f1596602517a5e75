package cache

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"landfall/cache/disk"
)

const (
	defaultMaxObject   = 32 << 20
	defaultFillTimeout = 5 * time.Minute

	// patience is how long a request waits for the header of a fetch that it joined before it goes on its own.
	patience = 10 * time.Second
	// retryAfter is how long a stale object is served without asking again after its revalidation failed, where it may
	// be served at all.
	retryAfter = time.Second

	copyBuffer = 32 << 10
)

// Fetch asks the origin: through compression, the choice of a region and a pool. It returns once the response's header
// is there; the body streams, and must fail when it ends early. It may be called from another goroutine than Serve was,
// concurrently, and after Serve has returned (fetches outlive a client that leaves, and refreshes have none): it must
// not touch the client's ResponseWriter, and ctx, which the request carries too, is not the client's then, though it has
// its values. The request may be changed freely unless it passes (then it is the one given to Serve).
type Fetch func(ctx context.Context, r *http.Request) (*http.Response, error)

// Policy is a route's cache policy. The durations fill in what a response doesn't say; they override nothing.
type Policy struct {
	Off                  bool           // nothing is stored or served from the store
	TTL                  *time.Duration // freshness of a 200, 203, 204, 300, 301 or 308 without any of its own; nil: such are not stored
	StaleWhileRevalidate *time.Duration // RFC 5861; nil: 0
	StaleIfError         *time.Duration // RFC 5861; nil: 0
	NoCollapse           bool           // each miss makes a fetch of its own

	Negative     map[int]time.Duration // freshness of other statuses without any of their own
	Jitter       float64               // 0 to 1: lifetimes are shortened by up to this share, by chance
	RefreshAhead float64               // 0 to 1: a hit in this last share of a lifetime refreshes in the background

	// Recoder gives what is stored in other content codings; nil: each is fetched for itself.
	Recoder Recoder
	// RangeFill: a range of what isn't stored makes the whole be fetched in the background, for those that follow.
	RangeFill bool
	// Peer: the request is another cache's of the fleet. It is answered with what that cache needs to store the response,
	// and stale only where the origin fails, and said so.
	Peer bool
	// Invalidated is told of each URL of the request's host that an unsafe request has changed, before its answer is sent:
	// an escaped path, and a query as it is in the key. nil: nobody is.
	Invalidated func(path, query string)
	// PathOf is the form in which requests for a URL have its path, for the URLs that responses name; false: such requests
	// are refused. nil: as it is.
	PathOf func(*url.URL) (path string, ok bool)
	// GroupsInvalidated is told of the cache groups that an unsafe request has invalidated, as Purge takes them. nil: nobody is.
	GroupsInvalidated func(origin string, names []string)
}

// Options configure a Cache.
type Options struct {
	MaxBytes  int64 // of objects stored and being stored, overhead included; 0 or less: nothing is stored
	MaxObject int64 // largest body stored, at most half of MaxBytes; 0: 32 MiB
	Now       func() time.Time
	Metrics   *Metrics     // nil: not exported
	Logger    *slog.Logger // nil: silent

	Disk *DiskOptions // nil: nothing is kept on disk

	// FillTimeout is how long a fetch goes on for the store alone, when nobody waits for it or reads it. 0: 5 minutes.
	FillTimeout time.Duration
}

// Cache is a shared HTTP cache in memory. Its methods may be called concurrently.
type Cache struct {
	store       *store
	generations *generations
	tier        *tier         // nil: there is no disk
	sweeps      chan struct{} // asks for a sweep
	closing     chan struct{}
	cutOff      atomic.Bool
	doubt       atomic.Bool // of what an earlier process left on disk
	marks       *marks
	searches    *searches
	metrics     *Metrics
	logger      *slog.Logger
	now         func() time.Time
	maxObject   int64
	fillTimeout time.Duration
	buffers     sync.Pool // *[copyBuffer]byte

	life    sync.Mutex
	closed  bool
	running sync.WaitGroup // fetches
}

// New makes a cache. Close ends it.
func New(o Options) *Cache {
	c := &Cache{metrics: o.Metrics, logger: o.Logger, now: o.Now, fillTimeout: o.FillTimeout}
	if c.metrics == nil {
		c.metrics = NewMetrics(nil)
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.fillTimeout <= 0 {
		c.fillTimeout = defaultFillTimeout
	}
	if o.MaxObject <= 0 {
		o.MaxObject = defaultMaxObject
	}
	o.MaxBytes = max(o.MaxBytes, 0)
	c.maxObject = min(o.MaxObject, o.MaxBytes/2)
	c.buffers.New = func() any { return new([copyBuffer]byte) }
	seed := maphash.MakeSeed()
	c.searches = &searches{seed: seed}
	c.marks = &marks{seed: seed, start: c.now()}
	c.generations = newGenerations(seed)
	c.store = newStore(seed, newBudget(o.MaxBytes, c.metrics), c.generations)
	c.sweeps, c.closing = make(chan struct{}, 1), make(chan struct{})
	if o.Disk != nil && c.maxObject > 0 {
		c.openDisk(*o.Disk)
	}
	c.running.Go(c.sweep)
	return c
}

// Close waits for the fetches under way: those that nobody reads are cancelled, the others end with their readers. What
// is stored is dropped. A request that comes later passes to the origin.
func (c *Cache) Close() {
	c.life.Lock()
	if !c.closed {
		c.closed = true
		close(c.closing)
	}
	c.life.Unlock()
	for _, f := range c.store.allFills() {
		f.expire()
	}
	c.running.Wait()
	if c.tier != nil {
		c.tier.close()
	}
	c.store.clear()
}

// begin enters a fetch, unless the cache is closed. The fetch's end leaves.
func (c *Cache) begin() bool {
	c.life.Lock()
	defer c.life.Unlock()
	if c.closed {
		return false
	}
	c.running.Add(1)
	return true
}

// remove drops an object that isn't what the origin has any more.
func (c *Cache) remove(o *object) {
	c.store.remove(o)
	c.tier.remove(o)
}

// Stats is the state of a cache at a moment, and what it did since it was made.
type Stats struct {
	Objects  int64 // stored responses, each variant for itself
	Bytes    int64 // charged for them and for those being fetched; never above MaxBytes
	MaxBytes int64
	Filling  int64 // of Bytes, those of responses being fetched

	Hits, Misses, Stale, Revalidated, Passes, Collapsed, Errors int64 // requests by Outcome.Result
	Evictions                                                   int64

	Disk *disk.Stats // nil: there is none
}

// Stats counts.
func (c *Cache) Stats() Stats {
	b := c.store.budget
	b.mu.Lock()
	s := Stats{Objects: b.objects, Bytes: b.used, MaxBytes: b.max + b.policy.bytes(), Filling: b.filling, Evictions: b.evicted}
	b.mu.Unlock()
	if c.tier != nil {
		st := c.tier.store.Stats()
		s.Disk = &st
	}
	for i := range c.store.shards {
		r := &c.store.shards[i].results
		s.Hits += r.of(Hit).Load()
		s.Misses += r.of(Miss).Load()
		s.Stale += r.of(Stale).Load()
		s.Revalidated += r.of(Revalidated).Load()
		s.Passes += r.of(Pass).Load()
		s.Collapsed += r.of(Collapsed).Load()
		s.Errors += r.of(Failed).Load()
	}
	return s
}
