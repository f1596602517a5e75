package replay

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"
)

// What is drawn has the promised shares, is the same for a seed, and is answered by the origin with the lifetimes of its kind.
func TestMix(t *testing.T) {
	const draws = 50_000
	a, b := New(1, 0.8), New(1, 0.8)
	kinds, paths, first := map[string]int{}, map[string]bool{}, 0
	for range draws {
		path, accept := a.Draw()
		if p, c := b.Draw(); p != path || c != accept {
			t.Fatal("the same seed drew something else")
		}
		if !Known(path) {
			t.Fatalf("%s is not known", path)
		}
		kinds[strings.Split(path, "/")[1]]++
		paths[path] = true
		if path == "/static/0.js" {
			first++
		}
	}
	share := func(kind string) float64 { return float64(kinds[kind]) / draws }
	if s, p, api := share("static"), share("account"), share("api"); s < 0.68 || s > 0.72 || p < 0.04 || p > 0.06 || api < 0.23 || api > 0.27 {
		t.Errorf("static %.2f, personal %.2f, API %.2f", s, p, api)
	}
	if first < draws/50 || len(paths) < staticFiles+apiCalls {
		t.Errorf("the first file was drawn %d times, %d paths were", first, len(paths))
	}
	var o Origin
	for path, life := range map[string]string{"/static/3.jpg": "public, max-age=3600", "/api/7": "max-age=12", "/account/9": "private, no-store"} {
		w := httptest.NewRecorder()
		o.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 || w.Header().Get("Cache-Control") != life || !bytes.Equal(w.Body.Bytes(), o.Body(path)) || w.Body.Len() < 500 {
			t.Errorf("%s: %d %v, %d bytes", path, w.Code, w.Header(), w.Body.Len())
		}
	}
	for _, path := range []string{"/", "/static/200.js", "/api/x", "/api/-1", "/other/1"} {
		w := httptest.NewRecorder()
		o.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
