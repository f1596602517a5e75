package admin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// noon is when everything happens.
func noon() time.Time { return time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC) }

// fakeBackend is a fleet of two regions. Fields may be set before it is served.
type fakeBackend struct {
	ready   []string // what it waits for
	explain func(url string, client netip.Addr) (Explanation, error)
	purge   func(ctx context.Context, p PurgeRequest) (PurgeResult, error)
	drain   func(ctx context.Context) error

	mu     sync.Mutex
	drains map[DrainTarget]Drain

	breakers map[BreakerTarget]BreakerOrder
	last     PurgeResult
}

var _ Backend = (*fakeBackend)(nil)

func (f *fakeBackend) summary(name string) RegionSummary {
	f.mu.Lock()
	_, drained := f.drains[DrainTarget{DrainRegion, name}]
	f.mu.Unlock()
	return RegionSummary{Name: name, State: "up", NodesLive: 1, NodesTotal: 2, Drained: drained,
		Services: Map[string]{"shop": "up"}, RTT: 81.25}
}

func (f *fakeBackend) Status() Status {
	return Status{Fleet: "shop", Node: "eu-1", Region: "eu-west", Version: "1.0", ConfigHash: "0123456789ab", State: "serving",
		Ready: true, NotReady: []string{}, Uptime: Duration(90 * time.Minute), RequestsPerSecond: 12.5,
		DNSPush: []DNSPush{{Target: "corp", Zone: "example.com", Node: "eu-1", Self: true, Pending: 2, Kept: []string{"lost.example.com"}, LastPush: noon(), Error: "REFUSED"}},
		Regions: []RegionSummary{f.summary("eu-west"), f.summary("us-east")}}
}

func (f *fakeBackend) Regions() []Region {
	return []Region{
		{RegionSummary: f.summary("eu-west"), Self: true, Location: &Location{53.35, -6.26}, Nodes: []string{"eu-1", "eu-2"},
			Drain: &Drain{DrainTarget: DrainTarget{DrainRegion, "eu-west"}, By: "deploy", Since: noon(), Expires: noon().Add(time.Hour)}},
		{RegionSummary: f.summary("us-east"), Reason: "no live node", Nodes: []string{"us-1"}},
	}
}

func (f *fakeBackend) Nodes() []Node {
	return []Node{
		{Name: "eu-1", Region: "eu-west", State: "serving", Reachable: true, Addresses: []string{"192.0.2.1", "2001:db8::1"},
			Version: "1.0", ConfigHash: "0123456789ab", Self: true, LastSeen: noon()},
		{Name: "us-1", Region: "us-east", State: "dead", Addresses: []string{}, RTT: 81.25},
	}
}

func (f *fakeBackend) Config() ConfigInfo {
	return ConfigInfo{Hash: "0123456789ab", File: "/etc/landfall.yaml", Loaded: noon(), LastError: "line 3: unknown key", Split: true,
		Hashes: []ConfigHolder{{Hash: "0123456789ab", Nodes: []string{"eu-1"}}}}
}

func (f *fakeBackend) Services() []Service {
	return []Service{{Name: "shop", Hosts: []string{"shop.example.com", "*.shop.example.com"}, Regions: []ServiceRegion{{"eu-west", "up"}}}}
}

func fakeOrigins() []Origin {
	return []Origin{{URL: "http://10.1.1.1:8080", State: "down", Detail: "probe: 503", Breaker: "half-open", InFlight: 3, LastProbe: noon()}}
}

func (f *fakeBackend) Pools(service string) ([]Pool, error) {
	return []Pool{{Region: "eu-west", State: "down", Origins: fakeOrigins()}}, nil
}

func (f *fakeBackend) Explain(url string, client netip.Addr) (Explanation, error) {
	if f.explain != nil {
		return f.explain(url, client)
	}
	km := 463.0
	e := Explanation{URL: url, Host: "shop.example.com", Client: ExplainClient{Source: "none"}, Service: "shop", Mode: "normal", ModeText: "an ordinary decision",
		Regions: []ExplainedRegion{
			{Region: "eu-west", Rank: 1, Usable: true, State: "up", Reason: "chosen", ReasonText: "nearest", DistanceKM: &km, DistanceSource: "geography", Weight: 1, Nodes: []string{"eu-1"}},
			{Region: "us-east", Rank: 2, State: "down", Reason: "no-node", ReasonText: "no live node", DistanceSource: "none", Weight: 1, Nodes: []string{}},
		},
		Answer:   &DNSAnswer{Addresses: []string{"192.0.2.1"}, TTL: 20, TTLText: "calm for 12m0s", Scope: 24},
		Route:    &ExplainedRoute{Match: "/*", Cache: "on", Holders: List[Holder]{{Role: "peer", Region: "eu-west", Node: "eu-2"}}},
		Pool:     &ExplainedPool{Region: "eu-west", Origins: fakeOrigins()},
		Steering: &ExplainedSteering{From: "us-east", To: "eu-west", Name: "eu.example.com", By: "redirect", Saves: 80, Sent: true}}
	if client.IsValid() {
		e.Client = ExplainClient{Address: client.String(), Country: "IE", Location: &Location{53.3, -6.2}, Source: "geoip"}
	}
	return e, nil
}

func (f *fakeBackend) Cache() CacheStats {
	return CacheStats{Node: "eu-1", Enabled: true, Objects: 7, Bytes: 4096, MaxBytes: 1 << 28, Hits: 3, Misses: 1, HitRatio: 0.75, Sources: List[PurgeSource]{{Name: "nats/CATALOG/landfall", Connected: true, Lag: 2, Purged: 5}}}
}

func (f *fakeBackend) Certs() []Cert {
	return []Cert{{Names: []string{"shop.example.com"}, Issuer: "Test CA", Source: "file", NotBefore: noon(), NotAfter: noon().AddDate(0, 3, 0)}}
}

func (f *fakeBackend) Ready() (bool, []string) { return len(f.ready) == 0, f.ready }

func (f *fakeBackend) Drains() []Drain {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Drain
	for _, d := range f.drains {
		out = append(out, d)
	}
	return out
}

func (f *fakeBackend) Weights() []Weight {
	return []Weight{{Service: "shop", Region: "eu-west", Weight: 5, By: "loopback", Since: noon()}}
}

func (f *fakeBackend) SetWeight(_ context.Context, service, region string, spec *WeightSpec, by string) (WeightResult, error) {
	r := WeightResult{Service: service, Region: region, Weight: 1, Applied: []string{"eu-1"}, Missing: []string{}}
	if spec != nil {
		r.Weight, r.Set = spec.Weight, true
	}
	return r, nil
}

func (f *fakeBackend) SetDrain(ctx context.Context, target DrainTarget, spec *DrainSpec, by string) (DrainResult, error) {
	if f.drain != nil {
		if err := f.drain(ctx); err != nil {
			return DrainResult{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, before := f.drains[target]
	result := DrainResult{DrainTarget: target, Drained: spec != nil, Changed: before != (spec != nil), Applied: []string{"eu-1"}, Missing: []string{}}
	if spec == nil {
		delete(f.drains, target)
		return result, nil
	}
	if target.Name == "us-east" && !spec.Force {
		return DrainResult{}, Refused("without us-east the fleet can take 40000 of 60000 requests/s; use force to drain it all the same")
	}
	d := Drain{DrainTarget: target, Reason: spec.Reason, By: by, Since: noon()}
	if spec.For > 0 {
		d.Expires = d.Since.Add(spec.For.D())
	}
	if f.drains == nil {
		f.drains = map[DrainTarget]Drain{}
	}
	f.drains[target], result.Drain = d, &d
	return result, nil
}

func (f *fakeBackend) Purge(ctx context.Context, p PurgeRequest, wait, by string) (PurgeResult, error) {
	if f.purge != nil {
		return f.purge(ctx, p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = PurgeResult{ID: "p1", Service: p.Service, URLs: p.URLs, Prefixes: append(List[string]{}, p.Prefixes...), Hosts: append(List[string]{}, p.Hosts...), Keys: append(List[string]{}, p.Keys...), All: p.All, Soft: p.Soft, By: by, Issued: noon(), Removed: 2,
		Applied: []PurgeApplied{{Node: "eu-1", Region: "eu-west", Removed: 2}}, Missing: []PurgeMissing{{"us-1", "us-east", "unreachable"}}}
	return f.last, nil
}

func (f *fakeBackend) PurgeByID(id string) (PurgeResult, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, id != "" && id == f.last.ID
}

// served is an API behind a real server on loopback.
type served struct {
	*API
	url    string
	log    *EventLog
	reg    *prometheus.Registry
	client *http.Client
}

// remoteHeader makes the test server take a request for one that came from another machine.
const remoteHeader = "Test-From-Afar"

func serve(t testing.TB, backend *fakeBackend, change func(*Options)) *served {
	t.Helper()
	reg := prometheus.NewRegistry()
	o := Options{Backend: backend, Gatherer: reg, Metrics: NewMetrics(reg), Now: noon,
		Events: NewEventLog(8, noon, discard())}
	if change != nil {
		change(&o)
	}
	s := serveWith(t, New(o), nil)
	s.log, s.reg = o.Events, reg
	return s
}

func serveWith(t testing.TB, api *API, change func(*http.Server)) *served {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(remoteHeader) != "" {
			r.RemoteAddr = "192.0.2.99:4711"
		}
		api.Handler().ServeHTTP(w, r)
	}))
	if change != nil {
		change(server.Config)
	}
	server.Config.RegisterOnShutdown(api.Close)
	server.Start()
	t.Cleanup(func() {
		api.Close()
		server.Close()
	})
	return &served{API: api, url: server.URL, client: server.Client()}
}

func (f *fakeBackend) BreakerOrders() []BreakerOrder {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []BreakerOrder
	for _, o := range f.breakers {
		out = append(out, o)
	}
	return out
}

func (f *fakeBackend) SetBreaker(_ context.Context, target BreakerTarget, spec *BreakerSpec, by string) (BreakerResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, before := f.breakers[target]
	r := BreakerResult{BreakerTarget: target, Changed: before != (spec != nil), Applied: []string{"eu-1"}}
	delete(f.breakers, target)
	if spec != nil {
		if f.breakers == nil {
			f.breakers = map[BreakerTarget]BreakerOrder{}
		}
		o := BreakerOrder{BreakerTarget: target, State: spec.State, Reason: spec.Reason, By: by, Since: noon()}
		f.breakers[target], r.Order = o, &o
	}
	return r, nil
}
