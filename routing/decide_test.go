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
	var up, full, unknown, zero, elsewhere, drained, down []int
	service := s.Services[svc]
	for i, r := range s.Regions {
		p := service.Places[i]
		prefers := false
		if rule := service.rule(c.Country); rule != nil && !rule.Allowed[i] {
			if rule.Strict {
				continue
			}
			prefers = true
		}
		share := func(v float64, salt uint64) bool { return inShare(v, c.Key, hashString(r.Name), salt) }
		switch {
		case !p.HasPool:
		case r.Dead || p.Pool == Down:
			down = append(down, i)
		case r.Drained || share(r.Draining, saltDrain) || share(p.Drained, saltDrain):
			drained = append(drained, i)
		case prefers:
			elsewhere = append(elsewhere, i)
		case p.Weight == 0:
			zero = append(zero, i)
		case p.Pool == Unknown:
			unknown = append(unknown, i)
		case share(p.Return, saltReturn), naiveSpilled(s, p, i, c):
			full = append(full, i)
		default:
			up = append(up, i)
		}
	}
	sorted := func(rs []int) []int {
		slices.SortStableFunc(rs, func(a, b int) int {
			pa, pb := service.Places[a], service.Places[b]
			if service.Policy == Priority && pa.Order != pb.Order {
				return int(pa.Order) - int(pb.Order)
			}
			if da, db := naiveCost(s, c, a), naiveCost(s, c, b); service.Policy != Weighted && da != db {
				return int(math.Copysign(1, da-db))
			}
			sa := s.score(a, pa.Weight, c.Key)
			sb := s.score(b, pb.Weight, c.Key)
			return int(math.Copysign(1, sa-sb))
		})
		return rs
	}
	live := len(up) + len(full) + len(unknown) + len(zero) + len(elsewhere)
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
	return slices.Concat(sorted(up), sorted(full), sorted(unknown), sorted(zero), sorted(elsewhere))
}

// naiveSpilled: the farthest first where the client's own distance is known, else by hash.
func naiveSpilled(s *Snapshot, p Place, i int, c Client) bool {
	u := float64(mix(c.Key^hashString(s.Regions[i].Name)^saltSpill)>>11) / (1 << 53)
	r := s.Regions[i].Location
	cost := 0.0
	switch {
	case c.RTT != nil && c.RTT[i].Micros > 0:
		cost = float64(c.RTT[i].Micros)
	case c.Point.Located && r.Located:
		cost = float64(geographicCost(c.Point.vector().dot(r.vector())))
	}
	if p.Spill > 0 && p.SpillBeyond > 0 && cost > 0 {
		return cost*(0.75+u/2) > float64(p.SpillBeyond)
	}
	return u < p.Spill
}

// naiveCost is the distance by the best source: measured, else by place, else between regions.
func naiveCost(s *Snapshot, c Client, i int) float64 {
	switch r := s.Regions[i].Location; {
	case c.RTT == nil && c.Point.Located && r.Located:
		return float64(angleCost(c.Point.vector().dot(r.vector())))
	case c.RTT != nil && c.RTT[i].Micros > 0:
		return float64(c.RTT[i].Micros)
	case c.Point.Located && r.Located:
		return float64(geographicCost(c.Point.vector().dot(r.vector())))
	case c.Via-1 == i && (c.RTT != nil || !c.Point.Located):
		return 0
	case c.Via > 0 && s.PeerRTT != nil && s.PeerRTT[c.Via-1][i] > 0 && (c.RTT != nil || !c.Point.Located):
		return float64(s.PeerRTT[c.Via-1][i])
	}
	return math.MaxFloat64
}

func drawSnapshot(t *rapid.T) *Snapshot {
	n := rapid.IntRange(1, 8).Draw(t, "regions")
	s := Snapshot{Panic: rapid.Float64Range(0, 1).Draw(t, "panic"), AllDown: rapid.IntRange(-1, n-1).Draw(t, "alldown"),
		Services: []Service{{Policy: Policy(rapid.IntRange(0, 2).Draw(t, "policy"))}}}
	share := rapid.SampledFrom([]float64{0, 0, 0.3, 0.9})
	for i := range n {
		s.Regions = append(s.Regions, Region{
			Name:    fmt.Sprintf("r%d", i),
			Drained: rapid.IntRange(0, 3).Draw(t, "drained") == 0, Dead: rapid.IntRange(0, 3).Draw(t, "dead") == 0,
			Draining: share.Draw(t, "draining"),
			Location: drawPoint(t),
			Nodes:    []Node{{Name: "n", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}}},
		})
		s.Services[0].Places = append(s.Services[0].Places, Place{
			HasPool: rapid.IntRange(0, 4).Draw(t, "pool") > 0,
			Pool:    rapid.SampledFrom([]State{Up, Up, Unknown, Down}).Draw(t, "state"),
			Weight:  uint16(rapid.IntRange(0, 3).Draw(t, "weight")),
			Order:   uint8(rapid.IntRange(0, 2).Draw(t, "order")), Spill: share.Draw(t, "spill"), Drained: share.Draw(t, "away"),
			Return: share.Draw(t, "return"), Shut: rapid.Bool().Draw(t, "shut"),
			SpillBeyond: rapid.SampledFrom([]uint32{0, 20000, 60000, 150000}).Draw(t, "beyond"),
		})
	}
	if rapid.Bool().Draw(t, "peers") {
		for range n {
			row := make([]uint32, n)
			for j := range row {
				row[j] = uint32(rapid.IntRange(0, 3).Draw(t, "peer") * 10000)
			}
			s.PeerRTT = append(s.PeerRTT, row)
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "rules") {
		r := Rule{Strict: rapid.Bool().Draw(t, "strict"), Allowed: make([]bool, n)}
		r.Clients.Add(CountryOf(rapid.SampledFrom([]string{"FR", "US", ""}).Draw(t, "from")))
		for i := range r.Allowed {
			r.Allowed[i] = rapid.Bool().Draw(t, "allowed")
		}
		s.Services[0].Rules = append(s.Services[0].Rules, r)
	}
	return NewSnapshot(s)
}

func drawClient(t *rapid.T, s *Snapshot) Client {
	c := Client{Point: drawPoint(t), Key: rapid.Uint64().Draw(t, "key"), Country: CountryOf(rapid.SampledFrom([]string{"FR", "US", ""}).Draw(t, "country")),
		Via: rapid.IntRange(0, len(s.Regions)).Draw(t, "via")}
	if rapid.Bool().Draw(t, "measured") {
		c.RTT = make([]RTT, len(s.Regions))
		for i := range c.RTT {
			c.RTT[i] = RTT{uint32(rapid.IntRange(0, 3).Draw(t, "rtt") * 20000), Measured}
		}
	}
	return c
}

func drawPoint(t *rapid.T) Point {
	// A coarse grid, so that equal distances happen.
	return Point{float64(rapid.IntRange(-2, 2).Draw(t, "lat") * 40), float64(rapid.IntRange(-2, 2).Draw(t, "lon") * 80),
		rapid.IntRange(0, 4).Draw(t, "located") > 0}
}

func TestDecideAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		c := drawClient(t, s)
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
	for _, ch := range d.Choices[:d.Usable] {
		if s.Forbidden(0, ch.Region, c.Country) {
			t.Fatalf("a forbidden region is a candidate: %+v", ch)
		}
	}
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
		regions := slices.Clone(s.Regions)
		regions[2].Dead = true
		lost := NewSnapshot(Snapshot{Regions: regions, Services: s.Services, Panic: 0.5, AllDown: -1})
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
	s = NewSnapshot(*s)
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
		plain := fleet(n, true)
		spilling := fleet(n, true)
		spilling.Regions[0].Draining, spilling.Services[0].Places[1].Spill = 0.5, 0.5
		spilling = NewSnapshot(*spilling)
		rtts := make([]RTT, n)
		for i := range n / 2 {
			rtts[i] = RTT{Micros: uint32(20000 + 7919*i%150000), Source: Measured}
		}
		buf, addrs := make([]Choice, 0, n), make([]netip.Addr, 0, 2)
		run := func(name string, s *Snapshot, measured []RTT) {
			b.Run(fmt.Sprintf("regions=%d%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for i := range b.N {
					d := s.Decide(buf, 0, Client{Point: Point{float64(i%90) - 45, float64(i % 180), true}, Key: uint64(i), RTT: measured})
					addrs = s.Addresses(addrs[:0], d, uint64(i), false, 2)
				}
			})
		}
		run("", plain, nil)
		run("/measured", plain, rtts)
		run("/spilling", spilling, nil)
	}
}

// State says what every decision says of a region, where no client is treated apart; and draining as soon as one is.
func TestStateAgreesWithDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		for _, c := range s.Decide(nil, 0, Client{Key: rapid.Uint64().Draw(t, "key")}).Choices {
			p, r := s.Services[0].Places[c.Region], s.Regions[c.Region]
			got, ok := s.State(0, c.Region)
			if ok != p.HasPool {
				t.Fatalf("region %d: has a pool: %t, want %t", c.Region, ok, p.HasPool)
			}
			moving := r.Draining > 0 || p.Drained > 0
			if got != c.State && !(moving && got == Draining) {
				t.Fatalf("region %d: %v, and %v in the decision", c.Region, got, c.State)
			}
		}
	})
}
