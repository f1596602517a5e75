package push

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a provider in memory. It holds that no name with addresses ever has none.
type memory struct {
	zone    map[string][]string // by "name type"
	calls   int
	largest int // names of one call
	fail    error
	emptied []string
}

func (m *memory) SetRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	if m.calls++; m.fail != nil {
		return nil, m.fail
	}
	sets, names := map[string][]string{}, map[string]bool{}
	for _, r := range recs {
		rr := r.RR()
		key := rr.Name + " " + rr.Type
		sets[key] = append(sets[key], fmt.Sprintf("%s %d", rr.Data, int(rr.TTL.Seconds())))
		names[rr.Name] = true
	}
	m.largest = max(m.largest, len(names))
	for key, set := range sets {
		m.zone[key] = set
	}
	return recs, nil
}

func (m *memory) DeleteRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	if m.calls++; m.fail != nil {
		return nil, m.fail
	}
	for _, r := range recs {
		rr := r.RR()
		had := m.addresses(rr.Name)
		delete(m.zone, rr.Name+" "+rr.Type)
		if had > 0 && m.addresses(rr.Name) == 0 {
			m.emptied = append(m.emptied, rr.Name)
		}
	}
	return recs, nil
}

func (m *memory) addresses(name string) int {
	return len(m.zone[name+" A"]) + len(m.zone[name+" AAAA"])
}

// rig is a pusher with everything around it in the test's hands.
type rig struct {
	*Pusher
	mem    *memory
	now    time.Time
	leader string
	wanted []Name
	events []string
}

func newRig() *rig {
	r := &rig{mem: &memory{zone: map[string][]string{}}, now: time.Unix(1_800_000_000, 0), leader: "me"}
	r.Pusher = New(Options{
		Target: "corp", Zone: "example.com", Provider: r.mem, TTL: time.Minute, Interval: 10 * time.Second,
		Elected: func() (string, bool) { return r.leader, r.leader == "me" },
		Wanted:  func() []Name { return r.wanted },
		OnEvent: func(kind, subject, _ string) { r.events = append(r.events, kind+" "+subject) },
		Metrics: NewMetrics(nil), Now: func() time.Time { return r.now },
	})
	return r
}

// run lets time go by, as Run does.
func (r *rig) run(d time.Duration) {
	for end := r.now.Add(d); r.now.Before(end); r.now = r.now.Add(look) {
		r.step(context.Background())
	}
}

func host(name string, addrs ...string) Name {
	n := Name{Host: name}
	for _, a := range addrs {
		n.Addrs = append(n.Addrs, netip.MustParseAddr(a))
	}
	return n
}

func TestPush(t *testing.T) {
	r := newRig()
	r.mem.zone["www AAAA"] = []string{"2001:db8::dead 60"} // a forerunner's
	r.wanted = []Name{host("www.example.com", "192.0.2.2", "192.0.2.1", "192.0.2.1"), host("example.com", "2001:db8::1"), host("*.shop.example.com", "192.0.2.1"), host("lost.example.com")}
	r.run(settle)
	if r.mem.calls != 0 {
		t.Error("pushed before it can know the fleet")
	}
	r.run(2 * look)
	want := map[string][]string{"www A": {"192.0.2.1 60", "192.0.2.2 60"}, "@ AAAA": {"2001:db8::1 60"}, "*.shop A": {"192.0.2.1 60"}}
	if fmt.Sprint(r.mem.zone) != fmt.Sprint(want) {
		t.Errorf("the provider has %v, want %v", r.mem.zone, want)
	}
	if s := r.Status(); !s.Self || s.Pending != 0 || !slices.Equal(s.Kept, []string{"lost.example.com"}) || s.LastPush.IsZero() || s.Error != "" {
		t.Errorf("status %+v", s)
	}
	calls := r.mem.calls
	r.run(time.Minute)
	if r.mem.calls != calls {
		t.Error("pushed though nothing changed")
	}
	// One family goes: the other is there first.
	r.wanted[0] = host("www.example.com", "2001:db8::2")
	r.run(2 * look)
	if got := fmt.Sprint(r.mem.zone["www A"], r.mem.zone["www AAAA"]); got != "[] [2001:db8::2 60]" {
		t.Errorf("www has %s", got)
	}
	// Without an address a name stays.
	r.wanted[0] = host("www.example.com")
	r.run(time.Minute)
	if r.mem.addresses("www") != 1 || len(r.mem.emptied) > 0 {
		t.Errorf("www has %v; emptied: %v", r.mem.zone["www AAAA"], r.mem.emptied)
	}
	// A host that no service has any more keeps its addresses too.
	r.wanted = nil
	r.run(2 * refresh)
	if r.mem.addresses("@") != 1 {
		t.Error("a name was removed")
	}
}

func TestRefreshRepairs(t *testing.T) {
	r := newRig()
	r.wanted = []Name{host("www.example.com", "192.0.2.1")}
	r.run(time.Minute)
	r.mem.zone["www A"] = []string{"203.0.113.66 60"} // somebody else
	r.run(refresh)
	if got := fmt.Sprint(r.mem.zone["www A"]); got != "[192.0.2.1 60]" {
		t.Errorf("www has %s", got)
	}
}

func TestRateIsBounded(t *testing.T) {
	r := newRig()
	for i := range 3 * maxBatch {
		r.wanted = append(r.wanted, host(fmt.Sprintf("h%d.example.com", i), "192.0.2.1", "2001:db8::1"))
	}
	start := r.now
	for range 600 { // every host changes every second
		for i := range r.wanted {
			r.wanted[i].Addrs[0] = r.wanted[i].Addrs[0].Next()
		}
		r.run(look)
	}
	most := int(r.now.Sub(start)/r.o.Interval) + 1
	if r.mem.calls > most || r.mem.calls < most/2 || r.mem.largest > maxBatch {
		t.Errorf("%d calls in %s, at most %d may be; %d names in one", r.mem.calls, r.now.Sub(start), most, r.mem.largest)
	}
}

func TestFailures(t *testing.T) {
	r := newRig()
	r.wanted = []Name{host("www.example.com", "192.0.2.1")}
	r.mem.fail = errors.New("REFUSED")
	r.run(time.Hour)
	if r.mem.calls > 20 || r.mem.calls < 5 {
		t.Errorf("%d calls in an hour of failures", r.mem.calls)
	}
	if s := r.Status(); !strings.Contains(s.Error, "REFUSED") || s.Pending != 1 {
		t.Errorf("status %+v", s)
	}
	if !r.Troubled() {
		t.Error("an hour of failures is no trouble")
	}
	r.mem.fail = nil
	r.run(slowest + look)
	if r.Troubled() {
		t.Error("troubled though it pushes")
	}
	if s := r.Status(); s.Error != "" || s.Pending != 0 || r.mem.addresses("www") != 1 {
		t.Errorf("status %+v", s)
	}
	if got := strings.Join(r.events, ", "); got != "push.elected corp, push.failed corp, push.recovered corp" {
		t.Errorf("events: %s", got)
	}
}

// TestTroubleOutlastsTheElection holds that a node that failed and was relieved does not ask for the task at once.
func TestTroubleOutlastsTheElection(t *testing.T) {
	r := newRig()
	r.wanted = []Name{host("www.example.com", "192.0.2.1")}
	r.mem.fail = errors.New("unreachable")
	r.run(settle + look)
	if r.Troubled() {
		t.Error("troubled by one failure")
	}
	r.run(10 * r.o.Interval << enough)
	r.leader = "other"
	r.run(time.Minute)
	if !r.Troubled() {
		t.Error("another node's turn ended the trouble")
	}
	r.run(trouble)
	if r.Troubled() {
		t.Error("troubled for ever")
	}
}

// TestElection holds that another node's turn ends this one's, and that it starts from nothing when it is elected again.
func TestElection(t *testing.T) {
	r := newRig()
	r.leader = "other"
	r.wanted = []Name{host("www.example.com", "192.0.2.1")}
	r.run(time.Minute)
	if s := r.Status(); r.mem.calls != 0 || s.Self || s.Node != "other" {
		t.Errorf("%d calls, status %+v", r.mem.calls, s)
	}
	r.leader = "me"
	r.run(time.Minute)
	r.leader = ""
	r.run(look)
	r.mem.zone["www A"] = []string{"192.0.2.99 60"} // what the others pushed meanwhile
	r.leader = "me"
	r.run(time.Minute)
	if got := fmt.Sprint(r.mem.zone["www A"]); got != "[192.0.2.1 60]" {
		t.Errorf("www has %s", got)
	}
}

// TestNeverEmptied changes everything at random, failures and elections too: a name that had an address has one, and when
// things are quiet again the provider has what is wanted.
func TestNeverEmptied(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig()
		names := []string{"a.example.com", "b.example.com", "*.c.example.com"}
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			r.wanted = nil
			for _, n := range names {
				var addrs []string
				for _, a := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"} {
					if rapid.Bool().Draw(t, n+a) {
						addrs = append(addrs, a)
					}
				}
				r.wanted = append(r.wanted, host(n, addrs...))
			}
			r.mem.fail = nil
			if rapid.IntRange(0, 3).Draw(t, "fail") == 0 {
				r.mem.fail = errors.New("SERVFAIL")
			}
			r.leader = rapid.SampledFrom([]string{"me", "me", "me", "other"}).Draw(t, "leader")
			r.run(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
			if len(r.mem.emptied) > 0 {
				t.Fatalf("emptied: %v", r.mem.emptied)
			}
		}
		r.mem.fail, r.leader = nil, "me"
		r.run(slowest + refresh)
		for _, n := range r.wanted {
			if got := r.mem.addresses(libdns.RelativeName(n.Host, "example.com")); len(n.Addrs) > 0 && got != len(n.Addrs) {
				t.Fatalf("%s has %d addresses, want %v", n.Host, got, n.Addrs)
			}
		}
	})
}

// TestRunEnds holds that a pusher leaves nothing behind but what the provider has.
func TestRunEnds(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := newRig()
	r.o.Metrics = NewMetrics(reg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	r.o.OnEvent = func(string, string, string) { cancel() } // it was elected
	go func() { defer close(done); r.Run(ctx) }()
	<-done
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 0 {
		t.Errorf("%d series are left, %v", n, err)
	}
}
