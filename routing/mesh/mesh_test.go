package mesh

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"
)

func three(t *testing.T) (*fleet, *node, *node, *node) {
	t.Helper()
	f := newFleet(t)
	a := f.start("a", nil)
	b := f.start("b", nil, a)
	c := f.start("c", nil, a)
	whole(t, a, b, c)
	return f, a, b, c
}

func TestFleetForms(t *testing.T) {
	_, a, b, c := three(t)
	for _, n := range []*node{a, b, c} {
		<-n.Ready()
	}
	got := a.Members()
	if len(got) != 3 || got[0].Name != "a" || !got[0].Self || got[1].Self || got[2].Name != "c" {
		t.Fatalf("the members are not a, b, c with a itself: %+v", got)
	}
	m := a.sees("b")
	if m.Region != "r-b" || m.Version != "v1" || m.ConfigHash != "c1" || m.Peer != b.opt.Peer || m.Gossip != b.gossip || len(m.Addrs) != 1 {
		t.Errorf("b is not described as it described itself: %+v", m)
	}
	eventually(t, "a has measured the way to b", func() bool { return a.sees("b").RTT > 0 })

	b.SetState(Serving)
	b.Publish(json.RawMessage(`{"load": 0.5}`))
	for _, n := range []*node{a, c} {
		eventually(t, n.name+" sees b's state and report", func() bool {
			m := n.sees("b")
			return m.State == Serving && string(m.Report) == `{"load":0.5}`
		})
	}
	b.SetConfigHash("c2")
	eventually(t, "the split of configs is told", func() bool { return a.saw("config.split test") })
	b.SetConfigHash("c1")
	eventually(t, "its end is told", func() bool { return a.saw("config.whole test") })
	if a.mu.Lock(); a.changes == 0 {
		t.Error("OnChange was never called")
	}
	a.mu.Unlock()
}

func TestRegisterReachesAll(t *testing.T) {
	_, a, b, c := three(t)
	ack, err := b.Set(t.Context(), "drain/region/r-a", json.RawMessage(`{ "reason": "a<b" }`))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ack.Applied, []string{"a", "b", "c"}) || len(ack.Missing) != 0 {
		t.Fatalf("not all nodes have applied it: %+v", ack)
	}
	for _, n := range []*node{a, b, c} { // acknowledged means that the owner was told: no waiting here
		if got := n.told("drain/region/r-a"); !slices.Equal(got, []string{`{"reason":"a<b"}`}) {
			t.Errorf("%s told its owner %q", n.name, got)
		}
		if rs := n.Registers("drain/"); len(rs) != 1 || rs[0].By != "b" {
			t.Errorf("%s holds %+v", n.name, rs)
		}
	}
	if _, err := a.Set(t.Context(), "drain/region/r-a", nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b, c} {
		if rs := n.Registers("drain/"); len(rs) != 0 {
			t.Errorf("%s still holds %+v", n.name, rs)
		}
	}
}

func TestKilledNodeIsNoticed(t *testing.T) {
	_, a, b, c := three(t)
	c.kill()
	for _, n := range []*node{a, b} {
		eventually(t, n.name+" can't reach c", func() bool { return !n.sees("c").Reachable && n.saw("node.unreachable c") })
	}
	eventually(t, "a knows that b can't reach c", func() bool { return slices.Contains(a.sees("b").Unreachable, "c") })
	eventually(t, "gossip finds it dead", func() bool { return a.sees("c").State == Dead && a.saw("node.dead c") })
	ack, err := a.Set(t.Context(), "purge/1", json.RawMessage(`1`))
	if err != nil || !slices.Equal(ack.Applied, []string{"a", "b"}) || len(ack.Missing) != 0 {
		t.Errorf("a dead node counts: %+v, %v", ack, err)
	}
}

func TestLeavingIsNotDying(t *testing.T) {
	_, a, b, c := three(t)
	if err := c.Leave(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b} { // Leave has sent it; on a busy machine it may still be on its way
		eventually(t, n.name+" sees c leaving", func() bool { return n.sees("c").State == Leaving })
	}
	c.kill()
	for _, n := range []*node{a, b} {
		eventually(t, n.name+" knows that c left", func() bool { return n.saw("node.left c") })
		if n.saw("node.dead c") || n.saw("node.unreachable c") || slices.Contains(n.sees("a").Unreachable, "c") {
			t.Errorf("%s takes c's leaving for a failure", n.name)
		}
	}
}

func TestRestartKeepsRegisters(t *testing.T) {
	f := newFleet(t)
	dir := t.TempDir()
	a := f.start("a", nil)
	b := f.start("b", func(o *Options) { o.DataDir = dir }, a)
	whole(t, a, b)
	if _, err := a.Set(t.Context(), "k", json.RawMessage(`"first"`)); err != nil {
		t.Fatal(err)
	}
	b.kill()
	eventually(t, "a can't reach b", func() bool { return !a.sees("b").Reachable })
	if _, err := a.Set(t.Context(), "k", json.RawMessage(`"second"`)); err != nil {
		t.Fatal(err)
	}
	// The new process has another boot id, other ports, and no seeds: it finds the fleet by what is on its disk.
	b2 := f.start("b", func(o *Options) { o.DataDir = dir })
	<-b2.Ready()
	if got := b2.told("k"); !slices.Equal(got, []string{`"first"`, `"second"`}) {
		t.Errorf("ready before it learnt what it missed: %q", got)
	}
	whole(t, a, b2)
	if !a.saw("node.restarted b") {
		t.Error("a did not notice the restart")
	}
}

func TestPartitionHeals(t *testing.T) {
	f, a, b, c := three(t)
	f.cut(map[string]string{"c": "other"})
	eventually(t, "both sides take each other for dead, and gossip has forgotten", func() bool {
		return a.sees("c").State == Dead && b.sees("c").State == Dead && c.sees("a").State == Dead && c.sees("b").State == Dead
	})
	if m := a.sees("b"); !m.Reachable || m.State == Dead {
		t.Errorf("one side of a partition is no longer whole: %+v", m)
	}
	if _, err := a.Set(t.Context(), "here", json.RawMessage(`1`)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Set(t.Context(), "there", json.RawMessage(`2`)); err != nil {
		t.Fatal(err)
	}
	f.cut(nil)
	whole(t, a, b, c)
	for _, n := range []*node{a, b, c} {
		eventually(t, n.name+" has both sides' registers", func() bool { return len(n.Registers("")) == 2 })
	}
	eventually(t, "a says that c is back", func() bool { return a.saw("node.back c") })
}

func TestCutOffNodeIsMissing(t *testing.T) {
	f, a, _, _ := three(t)
	f.cut(map[string]string{"c": "other"})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	ack, err := a.Set(ctx, "purge/1", json.RawMessage(`1`))
	if err != nil || !slices.Equal(ack.Applied, []string{"a", "b"}) || !slices.Equal(ack.Missing, []string{"c"}) {
		t.Errorf("c, which is cut off but not yet known to be dead, must be named: %+v, %v", ack, err)
	}
}

func TestFleetFormsOverSlowPaths(t *testing.T) {
	f := newFleet(t)
	slow := func(o *Options) { o.Delay = func(string) time.Duration { return 20 * time.Millisecond } }
	a := f.start("a", slow)
	b := f.start("b", slow, a)
	whole(t, a, b)
	a.SetState(Draining)
	eventually(t, "gossip brings the state too", func() bool { return b.sees("a").State == Draining })
}
