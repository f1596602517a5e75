package gateway

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"landfall/configs"
	"landfall/routing"
)

// TestCalms changes one thing after the other, and holds that it ends the calm of the services that it concerns, once.
func TestCalms(t *testing.T) {
	base := func() *routing.Snapshot {
		place := routing.Place{HasPool: true, Weight: 1}
		return &routing.Snapshot{
			Regions:  []routing.Region{{Name: "ap", Nodes: []routing.Node{{Name: "ap-1"}}}, {Name: "eu", Nodes: []routing.Node{{Name: "eu-1"}}}},
			Services: []routing.Service{{Name: "bank", Places: []routing.Place{{}, place}}, {Name: "shop", Places: []routing.Place{place, place}}},
		}
	}
	for _, c := range []struct {
		name, bank, shop string
		change           func(*routing.Snapshot)
	}{
		{"nothing", "", "", func(*routing.Snapshot) {}},
		{"load", "", "", func(s *routing.Snapshot) { s.Regions[0].Load = 7 }},
		{"round trips", "", "", func(s *routing.Snapshot) { s.PeerRTT = [][]uint32{{0, 1}, {1, 0}} }},
		{"a region where only one is served", "", "ap went down", func(s *routing.Snapshot) { s.Regions[0].Dead = true }},
		{"a region", "eu went down", "eu went down", func(s *routing.Snapshot) { s.Regions[1].Dead = true }},
		{"a gradual drain", "moved 30%", "moved 30%", func(s *routing.Snapshot) { s.Regions[1].Draining = 0.3 }},
		{"a node", "other nodes take traffic in eu", "other nodes take traffic in eu", func(s *routing.Snapshot) { s.Regions[1].Nodes = nil }},
		{"a pool", "", "eu: its origins were up and are down", func(s *routing.Snapshot) { s.Services[1].Places[1].Pool = routing.Down }},
		{"a weight", "", "eu: its weight is 3", func(s *routing.Snapshot) { s.Services[1].Places[1].Weight = 3 }},
		{"a service's drain", "", "ap: a drain has moved 50%", func(s *routing.Snapshot) { s.Services[1].Places[0].Drained = 0.5 }},
		{"spill", "", "ap: it is full and sends 2%", func(s *routing.Snapshot) { s.Services[1].Places[0].Spill = 0.02 }},
		{"a return", "", "ap: it is coming back, 40%", func(s *routing.Snapshot) { s.Services[1].Places[0].Return = 0.4 }},
		{"a policy", "", "another config", func(s *routing.Snapshot) { s.Services[1].Policy = routing.Weighted }},
		{"a rule", "another config", "", func(s *routing.Snapshot) { s.Services[0].Rules = []routing.Rule{{Strict: true}} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := time.Unix(1_800_000_000, 0)
			old, now := base(), base()
			c.change(now)
			first := calms(nil, nil, old, at)
			if first["shop"].age != 0 {
				t.Errorf("a node starts calm: %+v", first["shop"])
			}
			still := calms(first, old, old, at.Add(time.Minute))
			changed := calms(still, old, now, at.Add(2*time.Minute))
			later := calms(changed, now, now, at.Add(3*time.Minute))
			for service, want := range map[string]string{"bank": c.bank, "shop": c.shop} {
				age := time.Minute
				if want == "" {
					want, age = "this node started", 3*time.Minute
				}
				if got := later[service]; got.age != age || !strings.Contains(got.what, want) {
					t.Errorf("%s: %s ago %q, want %s ago %q", service, got.age, got.what, age, want)
				}
			}
		})
	}
}

// TestCalmSpillBreathes holds that a spill that moves a little, as load does, is no change.
func TestCalmSpillBreathes(t *testing.T) {
	if what := placeDifference(&routing.Place{Spill: 0.21}, &routing.Place{Spill: 0.24}); what != "" {
		t.Error(what)
	}
	if what := placeDifference(&routing.Place{Spill: 0.02}, &routing.Place{}); what == "" {
		t.Error("the end of a spill is a change")
	}
}

func TestCalmText(t *testing.T) {
	z := configs.Zone{MinTTL: configs.Duration(5 * time.Second), TTL: configs.Duration(20 * time.Second)}
	c := calm{what: "eu went down", age: 12*time.Second + 1}
	if got := c.text(z); got != "5s to 20s: eu went down, 12s ago" {
		t.Error(got)
	}
	c.age = 90 * time.Second
	if got := c.text(z); got != "calm for 1m30s" {
		t.Error(got)
	}
	z.MinTTL = z.TTL
	if got := c.text(z); got != "always" {
		t.Error(got)
	}
}

// TestExplainedTTL holds that what DNS answers and what explain tells is one TTL, short on a node that has just started.
func TestExplainedTTL(t *testing.T) {
	u := origin(t, pathf("hello"))
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), `
listen: {dns: ["127.0.0.1:0"]}
dns: {zones: {shop.test: {ttl: 2h, min_ttl: 7s}}}
services: {web: {hosts: [shop.test], pools: {any: {origins: ["`+u+`"]}}}}
shutdown: {dns_wait: 0s}
`)
	p := start(t, Options{ConfigFile: file, Advertise: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	m := new(dns.Msg).SetQuestion("shop.test.", dns.TypeA)
	in, _, err := (&dns.Client{Net: "tcp", Timeout: long}).Exchange(m, p.listen["dns"])
	if err != nil || len(in.Answer) != 1 || in.Answer[0].Header().Ttl != 7 {
		t.Errorf("DNS answers %v, %v", in, err)
	}
	e, err := p.admin.Explain(t.Context(), "shop.test", netip.Addr{})
	if err != nil || e.Answer == nil || e.Answer.TTL != 7 || !strings.HasPrefix(e.Answer.TTLText, "7s to 2h") {
		t.Errorf("explain says %+v, %v", e.Answer, err)
	}
}
