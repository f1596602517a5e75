package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libdns/libdns"
)

const (
	// look is how often a pusher compares. It costs a decision for each host.
	look = time.Second
	// settle is how long a node is elected before it pushes: what it knows of the fleet may be seconds old.
	settle = 3 * time.Second
	// refresh is when a name is pushed again though nothing changed.
	refresh = 15 * time.Minute
	// patience bounds one call of a provider.
	patience = 15 * time.Second
	// enough failures in a row make a node troubled for a while: another one may reach the provider.
	enough  = 3
	trouble = 10 * time.Minute
	// slowest is the longest pause after failures.
	slowest = 10 * time.Minute
	// maxBatch bounds the names of one call, and maxBytes what they take in a message, which ends at 64 KiB.
	maxBatch = 100
	maxBytes = 48 << 10
)

// Provider is what a push needs of a DNS provider. Every package of the libdns family has it.
type Provider interface {
	libdns.RecordSetter
	libdns.RecordDeleter
}

// Name is a host and the addresses that it should have, of both families, in any order. Without addresses it is left as
// it is.
type Name struct {
	Host  string // within the zone, lower case, without a final dot; may begin with *.
	Addrs []netip.Addr
}

// Options is what a Pusher is made of; all but Logger are needed.
type Options struct {
	Target   string // its name in the config, for metrics and events
	Zone     string
	Provider Provider
	TTL      time.Duration // of the records; whole seconds
	Interval time.Duration // between two calls, at least

	Elected func() (node string, self bool) // who pushes, as this node sees it; "": nobody
	Wanted  func() []Name
	OnEvent func(kind, subject, detail string)
	Logger  *slog.Logger // nil: silent
	Metrics *Metrics
	Now     func() time.Time
}

// Status is what a pusher does.
type Status struct {
	Node     string    // that is elected, as this one sees it
	Self     bool      // it is this one; the rest is known then only
	Pending  int       // names that the provider has not been told of
	Kept     []string  // names without an address to give: they stay as they are
	LastPush time.Time // when the provider last took something; zero: not since this node was elected
	Error    string    // why the last call failed; empty: it did not
}

// Pusher keeps one target up to date. Status may be called at any time.
type Pusher struct {
	o Options

	// Owned by Run.
	elected  time.Time // since when; zero: another node is
	next     time.Time // no call before
	failures int
	pushed   map[string]pushed

	mu            sync.Mutex
	status        Status
	troubledUntil time.Time
}

// pushed is what the provider has of a name.
type pushed struct {
	addrs []netip.Addr // sorted
	at    time.Time
}

// New makes a Pusher; nothing happens until Run.
func New(o Options) *Pusher {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Pusher{o: o, pushed: map[string]pushed{}}
}

// Run pushes until ctx ends. What the provider has stays as it is then.
func (p *Pusher) Run(ctx context.Context) {
	t := time.NewTicker(look)
	defer t.Stop()
	defer p.o.Metrics.forget(p.o.Target)
	for {
		p.step(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Status tells what the pusher does.
func (p *Pusher) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Kept = slices.Clone(s.Kept)
	return s
}

// Troubled tells whether this node failed to push several times lately, so that another one should be elected.
func (p *Pusher) Troubled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.o.Now().Before(p.troubledUntil)
}

// step looks once, and calls the provider if something is due.
func (p *Pusher) step(ctx context.Context) {
	now := p.o.Now()
	node, self := p.o.Elected()
	if !self {
		p.elected, p.failures, p.next = time.Time{}, 0, time.Time{}
		clear(p.pushed)
		p.tell(Status{Node: node})
		return
	}
	if p.elected.IsZero() {
		p.elected = now
		p.o.OnEvent("push.elected", p.o.Target, fmt.Sprintf("this node pushes the addresses of %s from now on", p.o.Zone))
	}
	wanted := p.o.Wanted()
	due, kept := p.due(wanted, now)
	p.update(func(s *Status) { s.Node, s.Self, s.Pending, s.Kept = node, true, len(due), kept })
	if len(due) == 0 || now.Sub(p.elected) < settle || now.Before(p.next) {
		return
	}
	batch := batchOf(due)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := p.push(ctx, batch)
	if err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return // the node stops
	}
	p.account(batch, len(due), err)
}

// batchOf are the first names of due that fit in one message, at least one. An RFC 2136 update tells a name without
// compression with each address, once to remove what is there and once to add the new one.
func batchOf(due []Name) []Name {
	const fixed = 10 + 16 // type, class, TTL and length (RFC 1035, section 3.2.1), and an address
	sum := 0
	for i, n := range due {
		sum += 2 * max(len(n.Addrs), 1) * (len(n.Host) + 2 + fixed)
		if i == maxBatch || i > 0 && sum > maxBytes {
			return due[:i]
		}
	}
	return due
}

// due are the names that the provider has to be told of, and those that can't be, sorted.
func (p *Pusher) due(wanted []Name, now time.Time) (due []Name, kept []string) {
	for _, n := range wanted {
		if len(n.Addrs) == 0 {
			kept = append(kept, n.Host)
			continue
		}
		n.Addrs = slices.Clone(n.Addrs)
		slices.SortFunc(n.Addrs, netip.Addr.Compare)
		n.Addrs = slices.Compact(n.Addrs)
		if has, ok := p.pushed[n.Host]; !ok || !slices.Equal(has.addrs, n.Addrs) || now.Sub(has.at) >= refresh {
			due = append(due, n)
		}
	}
	// What has changed goes before what is only to be confirmed.
	slices.SortFunc(due, func(a, b Name) int {
		if c := p.order(a) - p.order(b); c != 0 {
			return c
		}
		return strings.Compare(a.Host, b.Host)
	})
	slices.Sort(kept)
	return due, kept
}

func (p *Pusher) order(n Name) int {
	if slices.Equal(p.pushed[n.Host].addrs, n.Addrs) {
		return 1
	}
	return 0
}

// push makes names what they should be: first the addresses that they have, then away with the family that they have
// none of any more. Not the other way round, or they would be empty in between.
func (p *Pusher) push(ctx context.Context, names []Name) error {
	var set, gone []libdns.Record
	for _, n := range names {
		rel := libdns.RelativeName(n.Host, p.o.Zone)
		before, known := p.pushed[n.Host]
		for _, rtype := range []string{"A", "AAAA"} {
			v6 := rtype == "AAAA"
			is := func(a netip.Addr) bool { return a.Unmap().Is6() == v6 }
			if !slices.ContainsFunc(n.Addrs, is) {
				if !known || slices.ContainsFunc(before.addrs, is) {
					gone = append(gone, libdns.RR{Name: rel, Type: rtype})
				}
				continue
			}
			for _, a := range n.Addrs {
				if is(a) {
					set = append(set, libdns.Address{Name: rel, TTL: p.o.TTL, IP: a.Unmap()})
				}
			}
		}
	}
	if _, err := p.o.Provider.SetRecords(ctx, p.o.Zone, set); err != nil {
		return fmt.Errorf("set addresses in %s: %w", p.o.Zone, err)
	}
	if len(gone) == 0 {
		return nil
	}
	if _, err := p.o.Provider.DeleteRecords(ctx, p.o.Zone, gone); err != nil {
		return fmt.Errorf("delete old addresses in %s: %w", p.o.Zone, err)
	}
	return nil
}

// account remembers how a call for batch, of pending names, went, and when the next one may be.
func (p *Pusher) account(batch []Name, pending int, err error) {
	now := p.o.Now()
	if err != nil {
		p.failures++
		pause := p.o.Interval << min(p.failures, 20)
		p.next = now.Add(min(max(pause, p.o.Interval), max(slowest, p.o.Interval)))
		p.o.Metrics.updates.WithLabelValues(p.o.Target, "failed").Inc()
		p.o.Logger.Warn("pushing addresses to a dns provider failed", "target", p.o.Target, "error", err, "again_in", p.next.Sub(now))
		if p.failures == 1 {
			p.o.OnEvent("push.failed", p.o.Target, fmt.Sprintf("%v; names keep the addresses that the provider has", err))
		}
		p.update(func(s *Status) {
			s.Error = err.Error()
			if p.failures >= enough {
				p.troubledUntil = now.Add(trouble)
			}
		})
		return
	}
	for _, n := range batch {
		p.pushed[n.Host] = pushed{addrs: n.Addrs, at: now}
	}
	p.next = now.Add(p.o.Interval)
	p.o.Metrics.updates.WithLabelValues(p.o.Target, "done").Inc()
	if p.failures > 0 {
		p.o.OnEvent("push.recovered", p.o.Target, "the provider takes addresses again")
	}
	p.failures = 0
	p.update(func(s *Status) {
		s.Error, s.LastPush, s.Pending, p.troubledUntil = "", now, pending-len(batch), time.Time{}
	})
}

func (p *Pusher) tell(s Status) { p.update(func(old *Status) { *old = s }) }

// update changes the status, and the metrics with it.
func (p *Pusher) update(change func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.status)
	self := 0.0
	if p.status.Self {
		self = 1
	}
	p.o.Metrics.elected.WithLabelValues(p.o.Target).Set(self)
	p.o.Metrics.pending.WithLabelValues(p.o.Target).Set(float64(p.status.Pending))
}
