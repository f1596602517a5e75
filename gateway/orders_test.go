package gateway

import (
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"

	"landfall/gateway/admin"
)

// TestPoolBreakerByHand: an operator holds the breaker of a whole pool open, by the API; it is shown, told with the reason,
// and ends by itself.
func TestPoolBreakerByHand(t *testing.T) {
	var reached atomic.Int32
	site := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		w.Header().Set("Cache-Control", "no-store")
	})
	p := start(t, Options{ConfigFile: write(t, filepath.Join(t.TempDir(), "fleet.yaml"), `
listen: {http: ["127.0.0.1:0"]}
services: {web: {hosts: [web.test], pools: {any: {origins: ["`+site+`"]}}, routes: [{match: {path: /*}, cache: off}]}}
`)})
	c := browser(t, p.listen["http"], nil)
	target := admin.BreakerTarget{Pool: "web/local"}
	if _, err := p.admin.SetBreaker(t.Context(), admin.BreakerTarget{Pool: "web/moon"}, &admin.BreakerSpec{State: "open"}, 0); err == nil {
		t.Error("the breaker of a pool that is not there was opened")
	}
	for _, step := range []struct {
		spec   *admin.BreakerSpec
		status int
		state  string
		forced bool
		event  string
	}{
		{&admin.BreakerSpec{State: "open", Reason: "its database is down"}, 503, "open", true, "breaker.open web/local: of the whole pool: by loopback: its database is down"},
		{&admin.BreakerSpec{State: "closed"}, 200, "closed", true, "breaker.closed web/local: of the whole pool: by loopback"},
		{nil, 200, "closed", false, "breaker.closed web/local: of the whole pool: an operator leaves it to itself again"},
	} {
		before := reached.Load()
		res, err := p.admin.SetBreaker(t.Context(), target, step.spec, 0)
		if err != nil || !res.Changed || res.BreakerTarget != target {
			t.Fatal(res, err)
		}
		resp, _ := get(t, c, "GET", "http://web.test/")
		if resp.StatusCode != step.status || (reached.Load() > before) != (step.status == 200) {
			t.Errorf("%+v: %d, the origin was asked: %v", step.spec, resp.StatusCode, reached.Load() > before)
		}
		if step.status == 503 && resp.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After:", resp.Header)
		}
		pools, err := p.admin.Pools(t.Context(), "web")
		if err != nil || len(pools) != 1 || pools[0].Breaker != step.state || pools[0].Forced != step.forced {
			t.Errorf("%+v %v", pools, err)
		}
		if !p.hasEvent(step.event) {
			t.Errorf("no event %q in %v", step.event, p.events())
		}
		orders, err := p.admin.Breakers(t.Context())
		if err != nil || (len(orders) == 1) != (step.spec != nil) || len(orders) == 1 && (orders[0].BreakerTarget != target || orders[0].By != "loopback") {
			t.Errorf("%+v %v", orders, err)
		}
	}
}
