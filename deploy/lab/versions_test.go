package lab

import (
	"net/http/httptest"
	"testing"
)

// TestVersions: a page gives the highest version that was set, and nothing cacheable before.
func TestVersions(t *testing.T) {
	h := originHandler("eu", "eu-origin-1")
	ask := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		return w
	}
	if w := ask("GET", "/versions/a"); w.Code != 503 || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v before it was set", w.Code, w.Header())
	}
	for _, v := range []string{"2", "1", "x"} {
		ask("PUT", "/versions/a?v="+v)
	}
	w := ask("GET", "/versions/a")
	if w.Code != 200 || w.Body.String() != "2" || w.Header().Get("Surrogate-Key") != "version-a versions" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
}
