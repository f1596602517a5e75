package mesh

import (
	"bytes"
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

func someInfo() info {
	return info{
		Started: 1000, Seq: 1, State: Serving, Region: "fra", Boot: "b1", Version: "1.2.3", Hash: "abcdef012345",
		Peer: netip.MustParseAddrPort("10.0.0.1:7443"), Admin: netip.MustParseAddrPort("[2001:db8::1]:9901"),
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2")},
	}
}

func TestMetaRoundTrip(t *testing.T) {
	largest := someInfo()
	long := strings.Repeat("x", maxText)
	largest.Region, largest.Boot, largest.Version, largest.Hash = long, long, long, long
	largest.Peer, largest.Addrs = largest.Admin, slices.Repeat([]netip.Addr{netip.MustParseAddr("2001:db8::2")}, MaxAddrs)
	for _, i := range []info{someInfo(), largest, {State: Joining, Region: "r", Boot: "b"}} {
		raw := appendMeta(nil, i)
		if len(raw) > maxMeta {
			t.Errorf("%d bytes don't fit gossip's %d", len(raw), maxMeta)
		}
		got, err := decodeMeta(raw)
		if err != nil || !reflect.DeepEqual(got, i) {
			t.Errorf("came back as %+v, %v", got, err)
		}
		if _, err := decodeMeta(append(raw, "later fields"...)); err != nil {
			t.Errorf("a later version's additions are refused: %v", err)
		}
		for cut := range raw {
			if _, err := decodeMeta(raw[:cut]); err == nil {
				t.Errorf("accepted when cut after %d of %d bytes", cut, len(raw))
			}
		}
	}
}

func FuzzMeta(f *testing.F) {
	f.Add(appendMeta(nil, someInfo()))
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		i, err := decodeMeta(raw)
		if err != nil {
			return
		}
		if err := i.check(); err != nil {
			t.Fatalf("accepted, although %v", err)
		}
		if back := appendMeta(nil, i); !bytes.HasPrefix(raw, back) {
			t.Fatalf("two ways to write one thing: %x and %x", raw, back)
		}
	})
}

func TestReach(t *testing.T) {
	const silence = time.Second
	type try struct {
		after time.Duration
		how   outcome
		want  standing
	}
	ms := time.Millisecond
	for name, tries := range map[string][]try{
		"first answer counts":        {{0, good, reachable}},
		"killed: refuses twice":      {{0, good, reachable}, {250 * ms, refused, reachable}, {125 * ms, refused, unreachable}},
		"refusal, then an answer":    {{0, good, reachable}, {250 * ms, refused, reachable}, {250 * ms, good, reachable}, {250 * ms, refused, reachable}},
		"three misses":               {{0, good, reachable}, {250 * ms, missed, reachable}, {250 * ms, missed, reachable}, {250 * ms, missed, unreachable}},
		"silence":                    {{0, good, reachable}, {1000 * ms, missed, unreachable}},
		"never answered":             {{0, missed, untried}, {250 * ms, missed, untried}, {250 * ms, missed, unreachable}},
		"comes back by two answers":  {{0, refused, untried}, {0, refused, unreachable}, {0, good, unreachable}, {0, good, reachable}},
		"one answer is not enough":   {{0, refused, untried}, {0, refused, unreachable}, {0, good, unreachable}, {0, refused, unreachable}, {0, good, unreachable}},
		"a cut connection decides":   {{0, good, reachable}, {250 * ms, cut, unreachable}, {100 * ms, good, unreachable}, {250 * ms, good, reachable}},
		"misses and refusals add up": {{0, good, reachable}, {250 * ms, refused, reachable}, {250 * ms, missed, reachable}, {250 * ms, refused, unreachable}},
	} {
		r, now := reach{}, noon()
		for i, c := range tries {
			now = now.Add(c.after)
			if r = r.step(now, c.how, silence); r.standing != c.want {
				t.Errorf("%s: after step %d it is %d, not %d", name, i+1, r.standing, c.want)
			}
		}
	}
	if got := silenceLimit(250*ms, 0); got != 1250*ms {
		t.Errorf("the silence limit is %s", got)
	}
}

func TestAdopt(t *testing.T) {
	of := func(boot string, started int64, seq uint32) info {
		i := someInfo()
		i.Boot, i.Started, i.Seq = boot, started, seq
		return i
	}
	for _, c := range []struct {
		name   string
		in     info
		direct bool
		want   adoption
	}{
		{"old news", of("b2", 2000, 5), true, unchanged},
		{"news", of("b2", 2000, 6), false, updated},
		{"gossip of a later process", of("b3", 3000, 1), false, restarted},
		{"gossip of an earlier process", of("b0", 500, 9), false, unchanged},
		{"an unknown process speaks, its clock went back", of("b0", 500, 1), true, restarted},
		{"gossip of the process before", of("b1", 1000, 9), false, unchanged},
		{"the process before speaks", of("b1", 1000, 9), true, returned},
	} {
		mb := &member{name: "n", info: of("b1", 1000, 1)}
		if mb.adopt(of("b2", 2000, 5), true) != restarted {
			t.Fatal("a restart is not seen")
		}
		if got := mb.adopt(c.in, c.direct); got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		name         string
		told         NodeState
		heard, alive bool
		standing     standing // by this node's link
		observed     standing // by those of others
		connected    bool
		down         time.Duration
		want         NodeState
		gone         bool
	}{
		{"in order", Serving, true, true, reachable, reachable, true, 0, Serving, false},
		{"gossip alone calls it dead", Serving, true, false, reachable, reachable, true, 0, Serving, false},
		{"links alone are silent, for a moment", Serving, true, true, unreachable, unreachable, false, time.Second, Serving, false},
		{"links are silent", Serving, true, true, unreachable, unreachable, false, deadAfter, Dead, false},
		{"silent to both", Draining, true, false, unreachable, unreachable, false, 0, Dead, false},
		{"others reach it", Serving, true, true, unreachable, reachable, true, time.Hour, Serving, false},
		{"not linked, others reach it", Serving, true, false, untried, reachable, true, 0, Serving, false},
		{"not linked, others don't", Serving, true, true, untried, unreachable, false, deadAfter, Dead, false},
		{"not linked, most don't reach it, but some do", Serving, true, false, untried, unreachable, true, time.Hour, Serving, false},
		{"just heard of", Joining, false, false, untried, untried, false, 0, Joining, false},
		{"leaving, still there", Leaving, true, false, reachable, reachable, true, 0, Leaving, false},
		{"left", Leaving, true, false, unreachable, unreachable, false, 0, Leaving, true},
		{"left, gossip doesn't know yet", Leaving, true, true, unreachable, untried, false, 0, Leaving, true},
	} {
		i := someInfo()
		i.State = c.told
		mb := &member{
			info: i, heard: c.heard, alive: c.alive, reach: reach{standing: c.standing}, observed: c.observed, connected: c.connected,
			lastSeen: noon(), downSince: noon().Add(-c.down),
		}
		if mb.state(noon()) != c.want || mb.gone(noon()) != c.gone {
			t.Errorf("%s: %s, gone %v", c.name, mb.state(noon()), mb.gone(noon()))
		}
	}
}

func TestDelayQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type arrival struct {
			body string
			at   time.Duration
		}
		start, got := time.Now(), make(chan arrival, 10)
		q := newDelayQueue(3, func(p delayed) { got <- arrival{string(p.body), time.Since(start)} })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.run(ctx)
		body := []byte("a")
		to := memberlist.Address{}
		if !q.push(start.Add(30*time.Millisecond), to, body) {
			t.Fatal("refused")
		}
		body[0] = 'b' // the queue has its own copy
		if !q.push(start.Add(10*time.Millisecond), to, body) || !q.push(start.Add(10*time.Millisecond), to, []byte("c")) {
			t.Fatal("refused")
		}
		if q.push(start, to, body) {
			t.Error("the queue is not bounded")
		}
		for _, want := range []arrival{{"b", 10 * time.Millisecond}, {"c", 10 * time.Millisecond}, {"a", 30 * time.Millisecond}} {
			if a := <-got; a != want {
				t.Errorf("arrived %v, not %v", a, want)
			}
		}
	})
}

func TestAdvertised(t *testing.T) {
	machine := []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("10.1.2.3"),
	}
	for _, c := range []struct{ bind, advertise, want string }{
		{"127.0.0.2:7946", "", "127.0.0.2:0"},
		{"0.0.0.0:7946", "192.0.2.9:7000", "192.0.2.9:7000"},
		{"0.0.0.0:7946", "", "10.1.2.3:0"},
		{"[::]:7946", "", "10.1.2.3:0"},
		{"[2001:db8::1]:7946", "", "[2001:db8::1]:0"},
	} {
		var adv netip.AddrPort
		if c.advertise != "" {
			adv = netip.MustParseAddrPort(c.advertise)
		}
		got, err := advertised(netip.MustParseAddrPort(c.bind), adv, machine)
		if err != nil || got != netip.MustParseAddrPort(c.want) {
			t.Errorf("%s, %s: %s, %v; not %s", c.bind, c.advertise, got, err, c.want)
		}
	}
	if _, err := advertised(netip.MustParseAddrPort("0.0.0.0:1"), netip.AddrPort{}, machine[:2]); err == nil {
		t.Error("a loopback address is told to other machines")
	}
}

func BenchmarkMeta(b *testing.B) {
	i := someInfo()
	var buf [maxMeta]byte
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeMeta(appendMeta(buf[:0], i)); err != nil {
			b.Fatal(err)
		}
	}
}
