package mesh

import (
	"bytes"
	"context"
	"encoding/json"
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

func FuzzBeat(f *testing.F) {
	f.Add(encode(beat{Fleet: "f", Node: "n", Meta: appendMeta(nil, someInfo()), Report: json.RawMessage(`{"a":"<"}`), Unreachable: []string{"x"}}))
	f.Add([]byte(`{"fleet":"f","node":"n","meta":"AQ=="}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, i, err := decodeBeat(raw)
		if err != nil {
			return
		}
		if !validName(b.Node) || len(b.Report) > MaxReport || len(b.Unreachable) > MaxMembers || i.check() != nil {
			t.Fatalf("accepted beyond the bounds: %+v", b)
		}
		if b.Report != nil && !json.Valid(b.Report) {
			t.Fatalf("a report that is not JSON: %q", b.Report)
		}
		b2, i2, err := decodeBeat(encode(b))
		if err != nil || !reflect.DeepEqual(i, i2) || b2.Node != b.Node || b2.Digest != b.Digest {
			t.Fatalf("does not survive its own encoding: %v", err)
		}
		mb := &member{name: b.Node, info: i}
		mb.hear(b, i, "me", noon())
		mb.settle(noon())
		if v := mb.view(noon()); v.ReportAt.After(noon()) {
			t.Fatalf("a report from the future: %v", v.ReportAt)
		}
	})
}

func FuzzExchange(f *testing.F) {
	f.Add(encode(exchange{Fleet: "f", Node: "n", Registers: []Register{register("k", `{"a":1}`, 5)}, Sums: make([]uint64, buckets)}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := decodeExchange(raw)
		if err != nil {
			return
		}
		for _, r := range x.Registers {
			c, err := r.canonical()
			if err != nil {
				continue
			}
			if len(c.Key) > MaxKey || len(c.Value) > MaxValue || c.TTL < 0 {
				t.Fatalf("accepted beyond the bounds: %+v", c)
			}
			var back Register
			if err := json.Unmarshal(encode(c), &back); err != nil {
				t.Fatal(err)
			}
			if again, err := back.canonical(); err != nil || again.fingerprint() != c.fingerprint() {
				t.Fatalf("%s changes on its way: %v", encode(c), err)
			}
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
	if got := silenceLimit(250*ms, 0); got != time.Second {
		t.Errorf("the silence limit is %s", got)
	}
	r := reach{}.step(noon(), good, silence)
	if got := r.timeout(noon().Add(250*ms), 250*ms, 500*ms); got != 1750*ms {
		t.Errorf("a beat over half a second of path may take %s", got)
	}
	if got := r.timeout(noon().Add(time.Hour), 250*ms, 500*ms); got != 1250*ms {
		t.Errorf("an overdue beat may take %s", got)
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
		standing     standing
		want         NodeState
		gone         bool
	}{
		{"in order", Serving, true, true, reachable, Serving, false},
		{"gossip alone calls it dead", Serving, true, false, reachable, Serving, false},
		{"beats alone don't come back", Serving, true, true, unreachable, Serving, false},
		{"silent to both", Draining, true, false, unreachable, Dead, false},
		{"known by its beats, not tried yet", Joining, false, false, untried, Joining, false},
		{"known by its beats, silent", Joining, false, false, unreachable, Dead, false},
		{"leaving, still there", Leaving, true, false, reachable, Leaving, false},
		{"left", Leaving, true, false, unreachable, Leaving, true},
		{"left, gossip doesn't know yet", Leaving, true, true, unreachable, Leaving, true},
	} {
		i := someInfo()
		i.State = c.told
		mb := &member{info: i, heard: c.heard, alive: c.alive, reach: reach{standing: c.standing}}
		if mb.state() != c.want || mb.gone() != c.gone {
			t.Errorf("%s: %s, gone %v", c.name, mb.state(), mb.gone())
		}
	}
}

func TestReportsAge(t *testing.T) {
	i := someInfo()
	mb := &member{name: "n", info: i}
	b := beat{Report: json.RawMessage(`1`), ReportVersion: 1, ReportAge: 2000, Unreachable: []string{"y", "x"}, HoldsBoot: "me", Holds: 4}
	if _, changed := mb.hear(b, i, "me", noon()); !changed || mb.holds != 4 {
		t.Error("a new report changes nothing")
	}
	v := mb.view(noon())
	if string(v.Report) != `1` || !v.ReportAt.Equal(noon().Add(-2*time.Second)) || !slices.Equal(v.Unreachable, []string{"x", "y"}) {
		t.Errorf("seen as %+v", v)
	}
	later := noon().Add(9 * time.Second)
	if v := mb.view(later); v.Report != nil {
		t.Error("a report of eleven seconds ago is shown")
	}
	b.Report, b.ReportAge = nil, 100 // renewed; this node has the version, so that it isn't sent again
	if _, changed := mb.hear(b, i, "me", later); !changed || mb.view(later).Report == nil {
		t.Error("a renewed report is not shown")
	}
	if mb.view(later.Add(ReportTTL+time.Second)).Unreachable != nil {
		t.Error("a silent node's view of the others is shown")
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

func BenchmarkBeat(b *testing.B) {
	raw := encode(beat{
		Fleet: "shop", Node: "fra-1", Meta: appendMeta(nil, someInfo()), ReportVersion: 7, HoldsBoot: "b1", Holds: 6,
		Report: json.RawMessage(`{"load":0.5,"pools":{` + strings.Repeat(`"svc":"up",`, 50) + `"x":"up"}}`),
	})
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		bt, _, err := decodeBeat(raw)
		if err != nil {
			b.Fatal(err)
		}
		encode(bt)
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
