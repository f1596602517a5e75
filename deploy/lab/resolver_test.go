package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// nameServer is a DNS server that answers as it is told.
type nameServer struct {
	addr string

	mu     sync.Mutex
	addrs  []string
	ttl    uint32
	rcode  int
	silent bool
	asked  int
	subnet string // that it was asked for
}

func newNameServer(t *testing.T, ttl uint32, addrs ...string) *nameServer {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{addr: pc.LocalAddr().String(), addrs: addrs, ttl: ttl}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: pc, Handler: n, NotifyStartedFunc: func() { close(started) }}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = srv.Shutdown(); <-ended })
	return n
}

func (n *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if o := q.IsEdns0(); o != nil && len(o.Option) == 1 {
		n.subnet = o.Option[0].String()
	}
	if n.silent {
		return
	}
	m := new(dns.Msg).SetRcode(q, n.rcode)
	for i, a := range n.addrs {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: n.ttl + uint32(i)}, A: net.ParseIP(a)})
	}
	_ = w.WriteMsg(m)
}

func (n *nameServer) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *nameServer) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// clock is a time that moves when it is told to.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

var testPrefix = netip.MustParsePrefix("192.0.2.0/24")

func text(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

func TestResolverHonoursTheTTL(t *testing.T) {
	ns, clk := newNameServer(t, 2, "127.0.1.1", "127.0.2.1"), &clock{t: time.Unix(1000, 0)}
	r := newResolver([]string{ns.addr}, testPrefix, "shop.lab.test", clk.now)
	look := func(want string, asked int) {
		t.Helper()
		addrs, err := r.lookup(t.Context())
		if err != nil || text(addrs) != want || ns.count() != asked {
			t.Errorf("%q (%v) after %d questions, want %q after %d", text(addrs), err, ns.count(), want, asked)
		}
	}
	look("127.0.1.1 127.0.2.1", 1)
	if ns.subnet != "192.0.2.0/24/0" {
		t.Errorf("the client subnet is %q", ns.subnet)
	}
	ns.set(func() { ns.addrs = []string{"127.0.3.1"} })
	clk.add(1999 * time.Millisecond)
	look("127.0.1.1 127.0.2.1", 1)
	clk.add(time.Millisecond)
	look("127.0.3.1", 2)
}

func TestResolverGoesOnToTheNextServer(t *testing.T) {
	silent, refuses, good := newNameServer(t, 0), newNameServer(t, 0), newNameServer(t, 0, "127.0.1.1")
	silent.set(func() { silent.silent = true })
	refuses.set(func() { refuses.rcode = dns.RcodeRefused })
	r := newResolver([]string{silent.addr, refuses.addr, good.addr}, testPrefix, "shop.lab.test", time.Now)
	for range 2 {
		if addrs, err := r.lookup(t.Context()); err != nil || text(addrs) != "127.0.1.1" {
			t.Fatalf("%v %v", addrs, err)
		}
	}
	if s, f, g := silent.count(), refuses.count(), good.count(); s != 1 || f != 1 || g != 2 {
		t.Errorf("asked %d, %d, %d times: the one that answered is to be asked first", s, f, g)
	}
}

// An answer without an address is an answer: it is remembered, and no other name server is asked instead.
func TestResolverRemembersAnEmptyAnswer(t *testing.T) {
	empty, good, clk := newNameServer(t, 5), newNameServer(t, 5, "127.0.2.1"), &clock{t: time.Unix(1000, 0)}
	r := newResolver([]string{empty.addr, good.addr}, testPrefix, "shop.lab.test", clk.now)
	for range 3 {
		if _, err := r.lookup(t.Context()); !errors.Is(err, ErrNoAddress) {
			t.Errorf("error %v", err)
		}
	}
	if empty.count() != 1 || good.count() != 0 {
		t.Errorf("asked %d and %d times", empty.count(), good.count())
	}
	clk.add(failureTTL)
	empty.set(func() { empty.addrs = []string{"127.0.1.1"} })
	if addrs, err := r.lookup(t.Context()); err != nil || text(addrs) != "127.0.1.1" {
		t.Errorf("%v %v", addrs, err)
	}
}

func TestResolverRemembersFailuresForAWhile(t *testing.T) {
	empty, clk := newNameServer(t, 5), &clock{t: time.Unix(1000, 0)}
	empty.set(func() { empty.rcode = dns.RcodeServerFailure })
	r := newResolver([]string{empty.addr}, testPrefix, "shop.lab.test", clk.now)
	for range 3 {
		if _, err := r.lookup(t.Context()); err == nil || !strings.Contains(err.Error(), "no name server answers") || !strings.Contains(err.Error(), "SERVFAIL") {
			t.Errorf("error %v", err)
		}
	}
	if empty.count() != 1 {
		t.Errorf("asked %d times", empty.count())
	}
	empty.set(func() { empty.rcode = dns.RcodeSuccess })
	clk.add(failureTTL)
	empty.set(func() { empty.addrs = []string{"127.0.1.1"} })
	if addrs, err := r.lookup(t.Context()); err != nil || text(addrs) != "127.0.1.1" {
		t.Errorf("%v %v", addrs, err)
	}
}

// Whoever waits for another's question leaves when its own time is up, and no time that ran out is taken for a failure of
// the name servers.
func TestResolverWaitsNoLongerThanItsAsker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResolver(nil, testPrefix, "shop.lab.test", time.Now)
		<-r.turn // someone asks, and has no answer yet
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := r.lookup(ctx); err == nil || !strings.Contains(err.Error(), "still waiting") || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
	ns := newNameServer(t, 5, "127.0.1.1")
	r := newResolver([]string{ns.addr}, testPrefix, "shop.lab.test", time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.lookup(ctx); err == nil {
		t.Error("an asker that went away got an answer")
	}
	if addrs, err := r.lookup(t.Context()); err != nil || text(addrs) != "127.0.1.1" {
		t.Errorf("the next asker gets %v, %v", addrs, err)
	}
}
