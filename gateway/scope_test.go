package gateway

import (
	"net/netip"
	"testing"

	"landfall/routing"
)

func TestScopeOf(t *testing.T) {
	place := func(lat, lon float64) routing.Point { return routing.Point{Lat: lat, Lon: lon, Located: true} }
	node := func(name string) []routing.Node { return []routing.Node{{Name: name}} }
	two := routing.NewSnapshot(routing.Snapshot{
		Regions:  []routing.Region{{Name: "a", Location: place(0, 0), Nodes: node("a1")}, {Name: "b", Location: place(0, 90), Nodes: node("b1")}},
		Services: []routing.Service{{Name: "s", Places: []routing.Place{{HasPool: true, Weight: 1}, {HasPool: true, Weight: 1}}}},
		AllDown:  -1,
	})
	one := routing.NewSnapshot(routing.Snapshot{
		Regions:  []routing.Region{{Name: "a", Location: place(0, 0), Nodes: node("a1")}},
		Services: []routing.Service{{Name: "s", Places: []routing.Place{{HasPool: true, Weight: 1}}}},
		AllDown:  -1,
	})
	for _, c := range []struct {
		name     string
		snapshot *routing.Snapshot
		client   netip.Addr
		want     uint8
	}{
		{"two regions, IPv4", two, netip.MustParseAddr("192.0.2.7"), 24},
		{"two regions, IPv6", two, netip.MustParseAddr("2001:db8::7"), 48},
		{"two regions, nothing known of the client", two, netip.Addr{}, 0},
		{"one region with one node", one, netip.MustParseAddr("192.0.2.7"), 0},
	} {
		if got := scopeOf(c.snapshot, c.snapshot.Decide(nil, 0, routing.Client{}), c.client); got != c.want {
			t.Errorf("%s: scope /%d, want /%d", c.name, got, c.want)
		}
	}
}
