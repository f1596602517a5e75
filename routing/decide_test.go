package routing

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// naive ranks like Decide, by the words of the package comment, with no care for speed: the slow proves the fast.
func naive(s *Snapshot, svc int, c Client) []int {
	var up, unknown, zero, drained, down []int
	for i, r := range s.Regions {
		p := s.Services[svc].Places[i]
		switch {
		case !p.HasPool:
		case r.Dead || p.Pool == Down:
			down = append(down, i)
		case r.Drained:
			drained = append(drained, i)
		case p.Weight == 0:
			zero = append(zero, i)
		case p.Pool == Unknown:
			unknown = append(unknown, i)
		default:
			up = append(up, i)
		}
	}
	sorted := func(rs []int) []int {
		slices.SortStableFunc(rs, func(a, b int) int {
			if s.Services[svc].Policy == Nearest {
				da, db := distance(c.Point, s.Regions[a].Location), distance(c.Point, s.Regions[b].Location)
				if math.Abs(da-db) > 1e-9 {
					if da < db {
						return -1
					}
					return 1
				}
			}
			sa := s.score(&Choice{Region: a, Weight: s.Services[svc].Places[a].Weight}, c.Key)
			sb := s.score(&Choice{Region: b, Weight: s.Services[svc].Places[b].Weight}, c.Key)
			return int(math.Copysign(1, sa-sb))
		})
		return rs
	}
	live := len(up) + len(unknown) + len(zero)
	switch {
	case live == 0 && len(drained) > 0:
		return sorted(drained)
	case live == 0 && s.AllDown >= 0 && slices.Contains(down, s.AllDown):
		return []int{s.AllDown}
	case live == 0:
		return sorted(down)
	case float64(len(down)) > s.Panic*float64(live+len(down)):
		up = append(up, down...)
	}
	return slices.Concat(sorted(up), sorted(unknown), sorted(zero))
}

func distance(a, b Point) float64 {
	if !a.Located || !b.Located {
		return math.Inf(1)
	}
	return math.Round(-a.vector().dot(b.vector()) * nearSteps)
}

func drawSnapshot(t *rapid.T) *Snapshot {
	n := rapid.IntRange(1, 8).Draw(t, "regions")
	s := Snapshot{Panic: rapid.Float64Range(0, 1).Draw(t, "panic"), AllDown: rapid.IntRange(-1, n-1).Draw(t, "alldown"),
		Services: []Service{{Policy: Policy(rapid.IntRange(0, 1).Draw(t, "policy"))}}}
	for i := range n {
		s.Regions = append(s.Regions, Region{
			Name:    fmt.Sprintf("r%d", i),
			Drained: rapid.Bool().Draw(t, "drained"), Dead: rapid.Bool().Draw(t, "dead"),
			Location: drawPoint(t),
			Nodes:    []Node{{Name: "n", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}}},
		})
		s.Services[0].Places = append(s.Services[0].Places, Place{
			HasPool: rapid.IntRange(0, 4).Draw(t, "pool") > 0,
			Pool:    rapid.SampledFrom([]State{Up, Unknown, Down}).Draw(t, "state"),
			Weight:  uint16(rapid.IntRange(0, 3).Draw(t, "weight")),
		})
	}
	return NewSnapshot(s)
}

func drawPoint(t *rapid.T) Point {
	// A coarse grid, so that equal distances happen.
	return Point{float64(rapid.IntRange(-2, 2).Draw(t, "lat") * 40), float64(rapid.IntRange(-2, 2).Draw(t, "lon") * 80),
		rapid.IntRange(0, 4).Draw(t, "located") > 0}
}

func TestDecideAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		c := Client{Point: drawPoint(t), Key: rapid.Uint64().Draw(t, "key")}
		d := s.Decide(nil, 0, c)
		var got []int
		for _, ch := range d.Choices[:d.Usable] {
			got = append(got, ch.Region)
		}
		if want := naive(s, 0, c); !slices.Equal(got, want) {
			t.Fatalf("candidates %v, want %v in %+v", got, want, s)
		}
		if len(d.Choices) != len(s.Regions) {
			t.Fatalf("%d choices for %d regions: each region must have its reason", len(d.Choices), len(s.Regions))
		}
		checkAnswer(t, s, d, c)
	})
}

// checkAnswer holds the promises of an answer: never empty while any region has a pool, no address twice, and never only
// down regions while an up one may be used.
func checkAnswer(t *rapid.T, s *Snapshot, d Decision, c Client) {
	answer := s.Addresses(nil, d, c.Key, false, 2)
	if (len(answer) == 0) != (d.Mode == Unservable) {
		t.Fatalf("mode %v answers %v", d.Mode, answer)
	}
	if len(answer) == 2 && answer[0] == answer[1] {
		t.Fatalf("the fallback is the first address again: %v", answer)
	}
	anyUp, answeredUp := false, false
	for _, ch := range d.Choices[:d.Usable] {
		if ch.State == Up {
			anyUp = true
			answeredUp = answeredUp || slices.Contains(answer, s.Regions[ch.Region].Nodes[0].Addrs[0])
		}
	}
	if anyUp && !answeredUp {
		t.Fatalf("answer %v names no up region though there is one: %+v", answer, d)
	}
}

// When a region goes, only its own clients move (minimal movement).
func TestOnlyTheClientsOfALostRegionMove(t *testing.T) {
	s := fleet(5, false)
	for key := range uint64(2000) {
		c := Client{Key: mix(key)}
		was := s.Decide(nil, 0, c).Choices[0].Region
		lost := NewSnapshot(Snapshot{Regions: slices.Clone(s.Regions), Services: s.Services, Panic: 0.5, AllDown: -1})
		lost.Regions[2].Dead = true
		if now := lost.Decide(nil, 0, c).Choices[0].Region; was != 2 && now != was || now == 2 {
			t.Fatalf("client %d moved from region %d to %d when region 2 went", key, was, now)
		}
	}
}

func TestWeightsShareTheClients(t *testing.T) {
	s := fleet(3, false)
	for i, w := range []uint16{1, 2, 5} {
		s.Services[0].Places[i].Weight = w
	}
	var counts [3]int
	const clients = 80000
	for key := range uint64(clients) {
		counts[s.Decide(nil, 0, Client{Key: mix(key)}).Choices[0].Region]++
	}
	for i, share := range []float64{1.0 / 8, 2.0 / 8, 5.0 / 8} {
		if got := float64(counts[i]) / clients; math.Abs(got-share) > 0.01 {
			t.Errorf("region %d got %.3f of the clients, want %.3f", i, got, share)
		}
	}
}

func TestClientKeyIsByPrefix(t *testing.T) {
	key := func(s string) uint64 { return ClientKey(netip.MustParseAddr(s)) }
	if key("192.0.2.1") != key("192.0.2.254") || key("192.0.2.1") == key("192.0.3.1") {
		t.Error("IPv4 keys must be equal within a /24 and differ outside")
	}
	if key("2001:db8:1::1") != key("2001:db8:1:ffff::2") || key("2001:db8:1::1") == key("2001:db8:2::1") {
		t.Error("IPv6 keys must be equal within a /48 and differ outside")
	}
	if key("::ffff:192.0.2.1") != key("192.0.2.1") {
		t.Error("a mapped address is its IPv4 address")
	}
	// All nodes of all versions must agree, so the function is frozen.
	if got, want := key("192.0.2.1"), uint64(0x469b26b1638c8372); got != want {
		t.Errorf("ClientKey(192.0.2.1) = %#x, want %#x", got, want)
	}
}

func fleet(n int, located bool) *Snapshot {
	s := Snapshot{Panic: 0.5, AllDown: -1, Services: []Service{{Name: "web"}}}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		s.Regions = append(s.Regions, Region{Name: fmt.Sprintf("region-%02d", i),
			Location: Point{rng.Float64()*120 - 60, rng.Float64()*360 - 180, located},
			Nodes:    []Node{{Name: "n", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i), 1})}}}})
		s.Services[0].Places = append(s.Services[0].Places, Place{HasPool: true, Weight: 1})
	}
	return NewSnapshot(s)
}

func TestDecideDoesNotAllocate(t *testing.T) {
	s := fleet(30, true)
	buf, addrs := make([]Choice, 0, 30), make([]netip.Addr, 0, 2)
	if n := testing.AllocsPerRun(100, func() {
		d := s.Decide(buf, 0, Client{Point: Point{48, 2, true}, Key: 7})
		addrs = s.Addresses(addrs[:0], d, 7, false, 2)
	}); n != 0 {
		t.Errorf("a decision allocates %v times", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{3, 12, 30} {
		s := fleet(n, true)
		buf, addrs := make([]Choice, 0, n), make([]netip.Addr, 0, 2)
		b.Run(fmt.Sprintf("regions=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				d := s.Decide(buf, 0, Client{Point: Point{float64(i%90) - 45, float64(i % 180), true}, Key: uint64(i)})
				addrs = s.Addresses(addrs[:0], d, uint64(i), false, 2)
			}
		})
	}
}
