package dns

import (
	"net/netip"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"pgregory.net/rapid"
)

func TestTTL(t *testing.T) {
	for _, c := range []struct{ least, most, calm, want time.Duration }{
		{5 * time.Second, 20 * time.Second, 0, 5 * time.Second},
		{5 * time.Second, 20 * time.Second, 19 * time.Second, 5 * time.Second},
		{5 * time.Second, 20 * time.Second, 20 * time.Second, 10 * time.Second},
		{5 * time.Second, 20 * time.Second, 40 * time.Second, 20 * time.Second},
		{5 * time.Second, 30 * time.Second, 60 * time.Second, 30 * time.Second},
		{20 * time.Second, 20 * time.Second, 0, 20 * time.Second},
		{0, 20 * time.Second, time.Hour, 20 * time.Second},
		{time.Second, 24 * time.Hour, 1 << 62, 24 * time.Hour},
	} {
		if got := TTL(c.least, c.most, c.calm); got != c.want {
			t.Errorf("TTL(%s, %s, %s) is %s, want %s", c.least, c.most, c.calm, got, c.want)
		}
	}
}

// TestTTLProperties holds the bounds, that calm never shortens a TTL, and that it stays short of the calm that it follows.
func TestTTLProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := time.Duration(rapid.Int64Range(1, 3600).Draw(t, "least")) * time.Second
		most := least + time.Duration(rapid.Int64Range(0, 86400).Draw(t, "more"))*time.Second
		calm := time.Duration(rapid.Int64Range(0, int64(72*time.Hour)).Draw(t, "calm"))
		longer := calm + time.Duration(rapid.Int64Range(0, int64(72*time.Hour)).Draw(t, "longer"))
		got := TTL(least, most, calm)
		switch {
		case got < least || got > most || got%time.Second != 0:
			t.Fatalf("%s is out of bounds", got)
		case TTL(least, most, longer) < got:
			t.Fatalf("%s after %s, less after %s", got, calm, longer)
		case got > least && got > calm/2:
			t.Fatalf("%s after only %s", got, calm)
		}
	})
}

// calmFleet answers as fleet does, and has been calm for a time.
type calmFleet struct {
	*fleet
	calm time.Duration
}

func (f *calmFleet) Resolve(room []netip.Addr, host string, client netip.Addr, v6 bool, n int) Answer {
	a := f.fleet.Resolve(room, host, client, v6, n)
	a.Calm = f.calm
	return a
}

// TestSteeredTTL holds that only what is steered has a TTL that moves, and that its signature goes with it.
func TestSteeredTTL(t *testing.T) {
	o := signedOptions(t, signTime)
	steer := &calmFleet{fleet: o.Steer.(*fleet)}
	o.Steer, o.Zones[0].MinTTL = steer, 5*time.Second
	s := mustNew(t, o)
	keys := keysOf(t, s)
	for _, c := range []struct {
		calm time.Duration
		name string
		typ  uint16
		want uint32
	}{
		{0, "www.rich.test.", mdns.TypeA, 5},
		{0, "www.rich.test.", mdns.TypeHTTPS, 5},
		{25 * time.Second, "www.rich.test.", mdns.TypeA, 10},
		{time.Hour, "www.rich.test.", mdns.TypeAAAA, 20},
		{0, "host.rich.test.", mdns.TypeA, 3600},
		{0, "ns1.rich.test.", mdns.TypeA, 20},
		{0, "rich.test.", mdns.TypeSOA, 30},
	} {
		steer.calm = c.calm
		m := askServer(t, s, c.name, c.typ, true, false)
		verify(t, m, keys)
		if len(m.Answer) == 0 || m.Answer[0].Header().Ttl != c.want {
			t.Errorf("%s %s after %s: %v, want a TTL of %d", c.name, mdns.TypeToString[c.typ], c.calm, m.Answer, c.want)
		}
	}
}
