package gateway

import (
	"encoding/base64"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"net/netip"

	"github.com/miekg/dns"

	"landfall/configs"
	"landfall/routing"
	"landfall/routing/dns/push"
)

// TestElected holds who pushes: the first by name of those that serve and have the target, on whichever node is asked.
func TestElected(t *testing.T) {
	for _, c := range []struct {
		name, want string
		members    []string
	}{
		{"alone", "eu-1", []string{"eu-1 serving"}},
		{"the first by name", "ap-1", []string{"eu-1 serving", "ap-1 serving", "us-1 serving"}},
		{"not one that is dead", "eu-1", []string{"eu-1 serving", "ap-1 dead", "us-1 serving"}},
		{"not one that can't be reached", "eu-1", []string{"eu-1 serving", "ap-1 serving unreachable", "us-1 serving"}},
		{"not one that leaves or drains", "eu-1", []string{"eu-1 serving", "ap-1 leaving", "ap-2 draining"}},
		{"not one whose report is old", "eu-1", []string{"eu-1 serving", "ap-1 serving stale", "us-1 serving"}},
		{"half of the fleet is enough", "eu-1", []string{"eu-1 serving", "ap-1 dead"}},
		{"less than half is not", "", []string{"eu-1 serving", "ap-1 dead", "us-1 dead"}},
		{"not one that failed lately", "eu-1", []string{"ap-1 serving troubled", "eu-1 serving", "us-1 serving"}},
		{"the first when all failed", "ap-1", []string{"ap-1 serving troubled", "eu-1 serving troubled"}},
		{"who left is not missed", "eu-1", []string{"eu-1 serving", "ap-1 leaving", "us-1 leaving"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &Node{}
			var members []member
			for _, text := range c.members {
				plain, trouble := strings.CutSuffix(text, " troubled")
				m := told(t, plain, "eu-1")
				if trouble {
					m.report.PushTrouble = []string{"corp"}
				}
				m.report.Push = []string{"corp"}
				members = append(members, m)
			}
			n.picture.Store(&picture{members: members})
			if got, self := n.elected("corp"); got != c.want || self != (got == "eu-1") {
				t.Errorf("elected %q (self: %t), want %q", got, self, c.want)
			}
			if got, _ := n.elected("other"); got != "" {
				t.Errorf("%q is elected for a target that no config has", got)
			}
		})
	}
}

func TestEveryonesAddresses(t *testing.T) {
	region := func(name string, addrs ...string) routing.Region {
		r := routing.Region{Name: name}
		for i, a := range addrs {
			r.Nodes = append(r.Nodes, routing.Node{Name: fmt.Sprint(name, i), Addrs: []netip.Addr{netip.MustParseAddr(a)}})
		}
		return r
	}
	for _, c := range []struct {
		name, want string
		region     int // whose own name it is, plus one
		change     func(*routing.Snapshot)
	}{
		{"all regions", "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1", 0, func(*routing.Snapshot) {}},
		{"not a dead one", "192.0.2.1 192.0.2.2 2001:db8::1", 0, func(s *routing.Snapshot) { s.Regions[2].Dead = true }},
		{"not one that drains", "192.0.2.3", 0, func(s *routing.Snapshot) { s.Regions[0].Draining = 0.6 }},
		{"one that has begun to", "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1", 0, func(s *routing.Snapshot) { s.Regions[0].Draining = 0.4 }},
		{"not where the origins are down", "192.0.2.1 192.0.2.2 2001:db8::1", 0, func(s *routing.Snapshot) { s.Services[0].Places[1].Pool = routing.Down }},
		{"all when all drain", "192.0.2.3", 0, func(s *routing.Snapshot) { s.Regions[0].Drained, s.Regions[1].Draining = true, 0.7 }},
		{"the region whose name it is", "192.0.2.3", 2, func(*routing.Snapshot) {}},
		{"all when that one drains", "192.0.2.1 192.0.2.2 2001:db8::1", 2, func(s *routing.Snapshot) { s.Regions[1].Drained = true }},
		{"all when that one is down", "192.0.2.1 192.0.2.2 2001:db8::1", 2, func(s *routing.Snapshot) { s.Services[0].Places[1].Pool = routing.Down }},
		{"all when all are down", "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1", 0, func(s *routing.Snapshot) {
			s.Services[0].Places[0].Pool, s.Services[0].Places[1].Pool = routing.Down, routing.Down
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			place := routing.Place{HasPool: true, Weight: 1}
			raw := routing.Snapshot{
				Regions:  []routing.Region{region("ap", "192.0.2.1", "192.0.2.2", "2001:db8::1"), region("eu", "192.0.2.3"), region("us", "192.0.2.4")},
				Services: []routing.Service{{Name: "web", Places: []routing.Place{place, place, {}}}}, Panic: 1, AllDown: -1,
			}
			if c.name == "not a dead one" {
				raw.Services[0].Places[2], raw.Services[0].Places[1] = place, routing.Place{}
			}
			c.change(&raw)
			var got []string
			for _, a := range everyonesAddresses(routing.NewSnapshot(raw), 0, c.region, 8) {
				got = append(got, a.String())
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("%v, want %s", got, c.want)
			}
		})
	}
}

// TestPushedHosts: the names that lead to a region are pushed for themselves, even where a wildcard covers them.
func TestPushedHosts(t *testing.T) {
	s := &configs.Service{Hosts: []string{"*.Example.com", "example.com", "www.other.test"}}
	s.Steering.Redirect = &configs.SteerRedirect{Names: map[string]string{"eu": "eu.example.com", "us": "us.other.test"}}
	if got := strings.Join(pushedHosts(s, "example.com"), " "); got != "*.example.com eu.example.com example.com" {
		t.Error(got)
	}
}

// updates is a primary that takes updates with a key, and remembers what it was told.
type updates struct {
	mu   sync.Mutex
	told []string
}

func (u *updates) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	u.mu.Lock()
	defer u.mu.Unlock()
	res := new(dns.Msg).SetReply(m)
	if m.IsTsig() == nil || w.TsigStatus() != nil || m.Opcode != dns.OpcodeUpdate {
		res.Rcode = dns.RcodeRefused
	} else {
		for _, rr := range m.Ns {
			u.told = append(u.told, strings.Join(strings.Fields(rr.String()), " "))
		}
		res.SetTsig("landfall.", dns.HmacSHA256, 300, time.Now().Unix())
	}
	_ = w.WriteMsg(res)
}

func (u *updates) has(line string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Contains(u.told, line)
}

// TestPushStatusInAReload: a target that a reload has just taken away is not told of.
func TestPushStatusInAReload(t *testing.T) {
	n := &Node{pushes: pushes{running: map[string]*push.Pusher{"gone": push.New(push.Options{})}}}
	n.generation.Store(&generation{config: &configs.Config{}})
	if got := n.pushStatus(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// TestPushFromANode runs a node with a target: the addresses arrive, the status tells, and a reload with another TTL brings
// them again.
func TestPushFromANode(t *testing.T) {
	t.Parallel()
	secret := base64.StdEncoding.EncodeToString([]byte("a key for tests, of 32 bytes...."))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &updates{}
	srv := &dns.Server{
		Listener: ln, Handler: u, TsigSecret: map[string]string{"landfall.": secret},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
	}
	served := make(chan error, 1)
	go func() { served <- srv.ActivateAndServe() }()
	defer func() { _ = srv.Shutdown(); <-served }()

	config := func(ttl string) string {
		return `
listen: {http: ["127.0.0.1:0"]}
dns: {push: {corp: {zone: example.com, ttl: ` + ttl + `, interval: 1s, rfc2136: {server: "` + ln.Addr().String() + `", key_name: landfall, secret: "${TSIG}"}}}}
services: {web: {hosts: [www.example.com, "*.shop.example.com", elsewhere.test], pools: {any: {origins: ["http://127.0.0.1:1"]}}}}
`
	}
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), config("60s"))
	p := start(t, Options{ConfigFile: file, Advertise: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Lookup: func(name string) (string, bool) { return secret, name == "TSIG" }})
	eventually(t, "the addresses arrive", func() bool {
		return u.has("www.example.com. 60 IN A 192.0.2.1") && u.has("*.shop.example.com. 60 IN A 192.0.2.1")
	})
	eventually(t, "the status tells", func() bool {
		st, err := p.admin.Status(t.Context())
		return err == nil && len(st.DNSPush) == 1 && st.DNSPush[0].Self && st.DNSPush[0].Node == "node-1" && st.DNSPush[0].Pending == 0 && !st.DNSPush[0].LastPush.IsZero()
	})
	if !p.hasEvent("push.elected corp") {
		t.Errorf("events: %v", p.events())
	}
	write(t, file, config("30s"))
	if err := p.n.Reload(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new TTL arrives", func() bool { return u.has("www.example.com. 30 IN A 192.0.2.1") })
	if u.has("elsewhere.test. 60 IN A 192.0.2.1") {
		t.Error("a host of another zone was pushed")
	}
}
