package rtt

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"landfall/routing"
)

var noon = time.Unix(1_800_000_000, 0)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func micros(t *Table, client string, now time.Time) []uint32 {
	var buf [3]routing.RTT
	var out []uint32
	for _, r := range t.Lookup(buf[:], addr(client), Network{}, now) {
		out = append(out, r.Micros)
	}
	return out
}

func TestObserveAndLookup(t *testing.T) {
	tab := New(3, 1, 100)
	tab.Observe(addr("192.0.2.7"), Network{}, 40*time.Millisecond, noon)
	var buf [3]routing.RTT
	if got := tab.Lookup(buf[:], addr("192.0.2.200"), Network{}, noon); got == nil || got[1] != (routing.RTT{Micros: 40000, Source: routing.Measured}) || got[0].Micros != 0 {
		t.Errorf("own prefix: %+v", got)
	}
	if got := tab.Lookup(buf[:], addr("192.0.77.1"), Network{}, noon); got == nil || got[1] != (routing.RTT{Micros: 40000, Source: routing.MeasuredWide}) {
		t.Errorf("the wider network: %+v", got)
	}
	if got := tab.Lookup(buf[:], addr("198.51.100.1"), Network{}, noon); got != nil {
		t.Errorf("a stranger: %+v", got)
	}
	tab.Observe(addr("192.0.2.9"), Network{}, 20*time.Millisecond, noon) // faster: at once
	if got := micros(tab, "192.0.2.7", noon); got[1] != 20000 {
		t.Errorf("a faster one: %v", got)
	}
	tab.Observe(addr("192.0.2.9"), Network{}, 100*time.Millisecond, noon) // slower: a little
	if got := micros(tab, "192.0.2.7", noon); got[1] != 30000 {
		t.Errorf("a slower one: %v", got)
	}
	// The wider network's is a mean: 40 ms, a little less for the one of 20, then a little more.
	if got := micros(tab, "192.0.77.1", noon); got[1] < 40000 || got[1] > 48000 {
		t.Errorf("the wider network: %v", got)
	}
	if got := micros(tab, "192.0.2.7", noon.Add(MaxAge+tick)); got != nil {
		t.Errorf("after a day: %v", got)
	}
	tab.Observe(addr("2001:db8:1::1"), Network{}, 5*time.Millisecond, noon)
	if got := micros(tab, "2001:db8:1:ffff::9", noon); len(got) != 3 || got[1] != 5000 {
		t.Errorf("IPv6: %v", got)
	}
	if (*Table)(nil).Lookup(buf[:], addr("192.0.2.7"), Network{}, noon) != nil {
		t.Error("no table knows nothing")
	}
}

// An autonomous system stands in for prefixes of whom nothing is known, in the same country alone.
func TestAutonomousSystem(t *testing.T) {
	tab, other, ie := New(3, 1, 100), New(3, 0, 100), Network{AS: 64500, Country: routing.CountryOf("IE")}
	for range 3 {
		tab.Observe(addr("192.0.2.7"), ie, 40*time.Millisecond, noon)
	}
	if err := other.Merge(1, tab.Deltas(), noon); err != nil {
		t.Fatal(err)
	}
	var buf [3]routing.RTT
	for _, tab := range []*Table{tab, other} {
		if got := tab.Lookup(buf[:], addr("203.0.113.1"), ie, noon); got == nil || got[1] != (routing.RTT{Micros: 40000, Source: routing.MeasuredAS}) {
			t.Errorf("another network of the system: %+v", got)
		}
		if got := tab.Lookup(buf[:], addr("203.0.113.1"), Network{AS: 64500, Country: routing.CountryOf("US")}, noon); got != nil {
			t.Errorf("in another country: %+v", got)
		}
		if got := tab.Lookup(buf[:], addr("192.0.77.1"), ie, noon); got[1].Source != routing.MeasuredWide {
			t.Errorf("the wider prefix is better: %+v", got)
		}
	}
}

func TestSharing(t *testing.T) {
	a, b := New(3, 0, 0), New(3, 1, 0)
	for i := range 10000 {
		a.Observe(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), Network{}, time.Duration(i%200+1)*time.Millisecond, noon)
	}
	rounds := 0
	for msg := a.Deltas(); msg != nil; msg = a.Deltas() {
		if err := b.Merge(0, msg, noon); err != nil {
			t.Fatal(err)
		}
		rounds++
	}
	if rounds < 2 || b.Len() != a.Len() {
		t.Errorf("%d messages, %d rows of %d", rounds, b.Len(), a.Len())
	}
	if got := micros(b, "10.1.2.9", noon); len(got) != 3 || got[0] != uint32(258%200+1)*1000 {
		t.Errorf("got %v", got)
	}
	a.Observe(addr("172.16.0.1"), Network{}, 59*time.Millisecond, noon)
	a.Deltas()
	a.Observe(addr("172.16.0.1"), Network{}, 59*time.Millisecond, noon) // nothing new
	if msg := a.Deltas(); msg != nil {
		t.Errorf("%d bytes though nothing changed", len(msg))
	}
}

// A full table stays full: its rows go at random, and its size is bounded.
func TestBounded(t *testing.T) {
	tab := New(12, 0, 6400)
	for i := range 50000 {
		tab.Observe(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1}), Network{}, time.Millisecond*30, noon)
	}
	if n := tab.Len(); n > 6400 || n < 5000 {
		t.Errorf("%d rows", n)
	}
}

// A million prefixes of 12 regions take less than 200 MB.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tab := New(12, 0, 1<<20)
	for i := range 1 << 20 {
		tab.Observe(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1}), Network{}, 30*time.Millisecond, noon)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	mb := float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)
	t.Logf("%d rows in %.0f MB", tab.Len(), mb)
	if tab.Len() < 1_000_000 || mb > 200 {
		t.Errorf("%d rows take %.0f MB", tab.Len(), mb)
	}
	runtime.KeepAlive(tab)
}

// FuzzMerge holds that whatever is accepted is a whole number of entries, each of which can be found.
func FuzzMerge(f *testing.F) {
	a := New(2, 0, 0)
	a.Observe(addr("192.0.2.1"), Network{}, time.Millisecond, noon)
	f.Add(a.Deltas())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, msg []byte) {
		b := New(2, 1, 1<<20)
		if b.Merge(0, msg, noon) != nil {
			if b.Len() != 0 {
				t.Error("a refused message left rows")
			}
			return
		}
		if b.Len() > (len(msg)-1)/deltaSize {
			t.Errorf("%d rows of %d bytes", b.Len(), len(msg))
		}
		for m := msg[1:]; len(m) > 0; m = m[deltaSize:] {
			if _, ok := b.shardOf(binary.BigEndian.Uint64(m)).rows[binary.BigEndian.Uint64(m)]; !ok {
				t.Error("an entry is lost")
			}
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	tab := New(12, 0, 0)
	for i := range 100000 {
		tab.Observe(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1}), Network{}, 30*time.Millisecond, noon)
	}
	var buf [12]routing.RTT
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		tab.Lookup(buf[:], netip.AddrFrom4([4]byte{0, byte(i >> 8), byte(i), 9}), Network{}, noon)
	}
}
