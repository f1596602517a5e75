package gateway

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"landfall/gateway/admin"
)

func faultSite(t *testing.T, chaos string) (*process, func() *http.Response) {
	url := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Landfall-Fault", "a lie")
		_, _ = io.WriteString(w, "hello")
	})
	p := start(t, Options{ConfigFile: write(t, filepath.Join(t.TempDir(), "fleet.yaml"), `
listen: {http: ["127.0.0.1:0"]}
`+chaos+`
services: {web: {hosts: [web.test], pools: {any: {origins: ["`+url+`"]}}, routes: [{match: {path: /api/*}, retry: {attempts: 1}}, {match: {path: /*}}]}}
`)})
	c := browser(t, p.listen["http"], nil)
	return p, func() *http.Response {
		resp, _ := get(t, c, "GET", "http://web.test/api/x")
		return resp
	}
}

// TestFaultAtRunTime: a fault is loud everywhere, hits what it names alone, and ends by itself.
func TestFaultAtRunTime(t *testing.T) {
	p, ask := faultSite(t, "chaos: {enabled: true, faults: {fixed: {service: web, route: /none, delay: 1ms}}}")
	ctx := t.Context()
	if resp := ask(); resp.StatusCode != 200 || resp.Header.Get("X-Landfall-Fault") != "" {
		t.Fatal(resp.StatusCode, resp.Header)
	}
	if _, err := p.admin.SetFault(ctx, "drill", &admin.FaultSpec{Service: "web", Route: "/api/*", Share: 100, Abort: 418, For: admin.Duration(2 * time.Second), Reason: "game day"}, 0); err != nil {
		t.Fatal(err)
	}
	if resp := ask(); resp.StatusCode != 418 || resp.Header.Get("X-Landfall-Fault") != "drill" {
		t.Error(resp.StatusCode, resp.Header)
	}
	if !p.hasEvent("fault.set drill: by loopback: answers 418 for 100% of the attempts of service web, route /api/*: game day") || !p.hasEvent("fault.set fixed: by config") {
		t.Error(p.events())
	}
	if st, err := p.admin.Status(ctx); err != nil || st.Faults != 2 {
		t.Error(st.Faults, err)
	}
	if list, err := p.admin.Faults(ctx); err != nil || len(list) != 2 || list[0].ID != "drill" || list[0].Expires.IsZero() || list[1].By != "config" {
		t.Errorf("%+v %v", list, err)
	}
	eventually(t, "the fault's end", func() bool { return ask().StatusCode == 200 && p.hasEvent("fault.ended drill") })
	for name, spec := range map[string]*admin.FaultSpec{
		"an unknown service": {Service: "shop", Share: 100, Reset: true, For: admin.Duration(time.Minute)},
		"an unknown route":   {Route: "/nowhere", Share: 100, Reset: true, For: admin.Duration(time.Minute)},
		"nothing at all":     {Share: 100, For: admin.Duration(time.Minute)},
		"two things":         {Share: 100, Reset: true, Abort: 500, For: admin.Duration(time.Minute)},
	} {
		if _, err := p.admin.SetFault(ctx, "x", spec, 0); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := p.admin.SetFault(ctx, "fixed", &admin.FaultSpec{Share: 100, Reset: true, For: admin.Duration(time.Minute)}, 0); err == nil || !strings.Contains(err.Error(), "the config has a fault of that name") {
		t.Error(err)
	}
	if _, err := p.admin.SetFault(ctx, "drill", &admin.FaultSpec{Share: 100, Reset: true, For: admin.Duration(time.Hour)}, 0); err != nil {
		t.Fatal(err)
	}
	if resp := ask(); resp.StatusCode != 502 || resp.Header.Get("X-Landfall-Fault") != "drill" {
		t.Error(resp.StatusCode, resp.Header)
	}
	if _, err := p.admin.SetFault(ctx, "drill", nil, 0); err != nil {
		t.Fatal(err)
	}
	if resp := ask(); resp.StatusCode != 200 {
		t.Error("a fault that was ended goes on:", resp.StatusCode)
	}
}

// TestFaultsNeedChaos: without chaos nobody can make one.
func TestFaultsNeedChaos(t *testing.T) {
	p, ask := faultSite(t, "")
	if _, err := p.admin.SetFault(t.Context(), "drill", &admin.FaultSpec{Share: 100, Abort: 503, For: admin.Duration(time.Minute)}, 0); err == nil || !strings.Contains(err.Error(), "chaos.enabled") {
		t.Error(err)
	}
	if resp := ask(); resp.StatusCode != 200 {
		t.Error(resp.StatusCode)
	}
}
