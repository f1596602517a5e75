package admin

import (
	"net/http"
	"testing"
)

func TestBreakerOrders(t *testing.T) {
	f := &fakeBackend{}
	s := serve(t, f, nil)
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"open", "PUT", "/v1/origins/http:%2F%2F10.1.1.1:8080/breaker", `{"state":"open","for":"1h","reason":"it lies"}`, http.StatusOK},
		{"by host and port", "PUT", "/v1/origins/10.1.1.1:8080/breaker", `{"state":"closed"}`, http.StatusOK},
		{"reset", "DELETE", "/v1/origins/10.1.1.1:8080/breaker", "", http.StatusOK},
		{"unknown origin", "PUT", "/v1/origins/10.9.9.9:80/breaker", `{"state":"open"}`, http.StatusNotFound},
		{"no body", "PUT", "/v1/origins/10.1.1.1:8080/breaker", "", http.StatusBadRequest},
		{"no state", "PUT", "/v1/origins/10.1.1.1:8080/breaker", `{"reason":"x"}`, http.StatusBadRequest},
		{"half-open", "PUT", "/v1/origins/10.1.1.1:8080/breaker", `{"state":"half-open"}`, http.StatusBadRequest},
		{"too long", "PUT", "/v1/origins/10.1.1.1:8080/breaker", `{"state":"open","for":"1ms"}`, http.StatusBadRequest},
		{"a whole pool", "PUT", "/v1/services/shop/regions/eu-west/breaker", `{"state":"open","reason":"its database is down"}`, http.StatusOK},
		{"a pool of a region that is not there", "PUT", "/v1/services/shop/regions/moon/breaker", `{"state":"open"}`, http.StatusNotFound},
		{"a pool, for too long", "PUT", "/v1/services/shop/regions/eu-west/breaker", `{"state":"open","for":"366d"}`, http.StatusBadRequest},
		{"another pool, reset", "DELETE", "/v1/services/shop/regions/us-east/breaker", "", http.StatusOK},
		{"drain an origin", "PUT", "/v1/origins/10.1.1.1:8080/drain", "", http.StatusOK},
		{"list", "GET", "/v1/breakers", "", http.StatusOK},
	} {
		resp, body := s.do(t, request{line: tt.method + " " + tt.path, body: tt.body})
		if resp.StatusCode != tt.status {
			t.Errorf("%s: %d, want %d: %s", tt.name, resp.StatusCode, tt.status, body)
		}
	}
	for _, target := range []BreakerTarget{{Origin: "http://10.1.1.1:8080"}, {Pool: "shop/eu-west"}} {
		if got := f.breakers[target]; len(f.breakers) != 2 || got.BreakerTarget != target || got.State != "open" || got.Reason == "" {
			t.Errorf("%s: %+v", target, f.breakers)
		}
	}
}
