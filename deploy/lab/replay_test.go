package lab

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// The origin answers the mix and tells how often it was asked.
func TestReplayed(t *testing.T) {
	s := httptest.NewServer(originHandler("eu", "eu-origin-1"))
	t.Cleanup(s.Close)
	for _, path := range []string{"/static/3.jpg", "/api/7", "/account/9"} {
		resp, err := s.Client().Get(s.URL + ReplayPath + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || len(b) < 500 || resp.Header.Get("Cache-Control") == "" {
			t.Errorf("%s: %d, %d bytes, %v", path, resp.StatusCode, len(b), err)
		}
	}
	if n, err := Replayed(t.Context(), s.Client(), s.URL); n != 3 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if ServedFromCache(http.Header{"Cache-Status": {"origin; hit, landfall; fwd=uri-miss"}}) != true || ServedFromCache(http.Header{"Cache-Status": {"landfall; fwd=uri-miss; stored"}}) {
		t.Error("Cache-Status is misread")
	}
}
