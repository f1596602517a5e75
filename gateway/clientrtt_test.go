package gateway

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"landfall/gateway/admin"
	"landfall/routing/rtt"
)

const zoneFleet = `
regions:
  far: {location: [1.35, 103.99], capacity: 100}
  near: {location: [53.35, -6.26], capacity: 100}
listen: {dns: ["127.0.0.1:0"], http: ["127.0.0.1:0"]}
dns:
  zones: {edge.test: {records: ["@ MX 10 mail.example.net.", "alias CNAME www"]}}
services:
  web:
    hosts: [www.edge.test]
    steering: {policy: nearest}
    pools: {any: {origins: ["ORIGIN"]}}
`

func zoneNode(t *testing.T, text string) *process {
	t.Helper()
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), strings.Replace(text, "ORIGIN", origin(t, pathf("hello")), 1))
	return start(t, Options{ConfigFile: file, Region: "near"})
}

// What a region measured of a client's prefix, here or told by another region, ranks the regions, and explain says so.
func TestMeasuredRoundTripsAreExplained(t *testing.T) {
	p := zoneNode(t, zoneFleet)
	client := netip.MustParseAddr("192.0.2.7")
	p.n.observeRTT(client, 40*time.Millisecond)
	table := p.n.rtts.Load()
	elsewhere := rttTableOf(t, p, "far")
	elsewhere.Observe(client, rtt.Network{}, 12*time.Millisecond, p.n.o.Now())
	rec := httptest.NewRecorder()
	req := httptest.NewRequest("POST", rttPath+"far", bytes.NewReader(elsewhere.Deltas()))
	req.SetPathValue("region", "far")
	p.n.takeRTT(rec, req)
	if rec.Code != http.StatusNoContent || table.Len() != 2 {
		t.Fatalf("%d %s, %d rows", rec.Code, rec.Body, table.Len())
	}
	e, err := p.admin.Explain(t.Context(), "www.edge.test", client)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]admin.ExplainedRegion{}
	for _, r := range e.Regions {
		told[r.Region] = r
	}
	if n := told["near"]; n.DistanceSource != "measured" || n.RTT == nil || *n.RTT != 40 {
		t.Errorf("near: %+v", n)
	}
	if f := told["far"]; f.DistanceSource != "measured" || f.RTT == nil || *f.RTT != 12 {
		t.Errorf("far: %+v", f)
	}
	for _, bad := range []string{"", "\x02", "\x01abc"} {
		rec := httptest.NewRecorder()
		req := httptest.NewRequest("POST", rttPath+"far", strings.NewReader(bad))
		req.SetPathValue("region", "far")
		if p.n.takeRTT(rec, req); rec.Code != http.StatusBadRequest {
			t.Errorf("%q: %d", bad, rec.Code)
		}
	}
}

// rttTableOf is the table of a node of another region of p's fleet.
func rttTableOf(t *testing.T, p *process, region string) *rttTable {
	t.Helper()
	other := &Node{id: identity{region: region}}
	other.openRTT(p.n.generation.Load().config)
	return other.rtts.Load()
}

func TestZoneIsServedAndReloaded(t *testing.T) {
	p := zoneNode(t, zoneFleet)
	ask := func(name string, qtype uint16) *mdns.Msg {
		r, err := mdns.Exchange(new(mdns.Msg).SetQuestion(name, qtype), p.listen["dns"])
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := ask("edge.test.", mdns.TypeMX); len(r.Answer) != 1 {
		t.Errorf("MX: %v", r)
	}
	if r := ask("alias.edge.test.", mdns.TypeA); len(r.Answer) == 0 || r.Answer[0].Header().Rrtype != mdns.TypeCNAME {
		t.Errorf("CNAME: %v", r)
	}
	serial := func() uint32 { return ask("edge.test.", mdns.TypeSOA).Answer[0].(*mdns.SOA).Serial }
	before := serial()
	if err := p.n.Reload(); err != nil {
		t.Fatal(err)
	}
	if after := serial(); after <= before {
		t.Errorf("serial %d after %d", after, before)
	}
}

// A weight set at run time holds until it is reset; one that leaves no region is refused unless forced.
func TestWeightsAtRunTime(t *testing.T) {
	p := zoneNode(t, zoneFleet)
	ctx := t.Context()
	if _, err := p.admin.SetWeight(ctx, "web", "near", &admin.WeightSpec{}, 0); err == nil || !strings.Contains(err.Error(), "no other region up") {
		t.Errorf("weight 0 for the only region: %v", err)
	}
	if r, err := p.admin.SetWeight(ctx, "web", "near", &admin.WeightSpec{Weight: 7}, 0); err != nil || r.Weight != 7 || !r.Set {
		t.Errorf("%+v %v", r, err)
	}
	if ws, err := p.admin.Weights(ctx); err != nil || len(ws) != 1 || ws[0].Weight != 7 || ws[0].By != "loopback" {
		t.Errorf("%+v %v", ws, err)
	}
	if r, err := p.admin.SetWeight(ctx, "web", "near", nil, 0); err != nil || r.Weight != 1 || r.Set {
		t.Errorf("%+v %v", r, err)
	}
}
