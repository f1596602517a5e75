package proxy

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"landfall/routing/geo"
)

// What isn't in the cache key can't change what is stored (rule 12 of the design): each test is a way in that a client had.

func send(t *testing.T, g *rig, method, path string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequest(method, g.h1.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "shop.test"
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := g.h1.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func bodyOf(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A HEAD that revalidates fills the cache with the GET's answer, never with its own empty body.
func TestHeadDoesNotStoreAnEmptyPage(t *testing.T) {
	var version atomic.Int64
	u, _ := counted(t, func(w http.ResponseWriter, r *http.Request) {
		v := version.Load()
		w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=60")
		w.Header().Set("Etag", fmt.Sprintf(`"v%d"`, v))
		if r.Header.Get("If-None-Match") == w.Header().Get("Etag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, "version %d", v)
		}
		w.(http.Flusher).Flush() // no Content-Length
	})
	g := newRig(t, one("", u), nil)
	if got := bodyOf(t, send(t, g, "GET", "/p")); got != "version 0" {
		t.Fatalf("got %q", got)
	}
	version.Store(1)
	for range 20 {
		send(t, g, "HEAD", "/p")
		if got := bodyOf(t, send(t, g, "GET", "/p")); got != "version 0" && got != "version 1" {
			t.Fatalf("a GET after a HEAD got %q", got)
		}
	}
}

func TestPortOfHostIsInTheKey(t *testing.T) {
	u, _ := counted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "host %s, forwarded %s", r.Host, r.Header.Get("X-Forwarded-Host"))
	})
	g := newRig(t, one("", u), nil)
	for _, evil := range []string{"shop.test:1337", "shop.test.", "SHOP.TEST:80"} {
		bodyOf(t, send(t, g, "GET", "/p", "Host", evil))
	}
	if got := bodyOf(t, send(t, g, "GET", "/p")); got != "host shop.test, forwarded shop.test" {
		t.Errorf("another client's Host is in the page: %q", got)
	}
}

func TestConnectionDoesNotChooseTheVariant(t *testing.T) {
	u, _ := counted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "X-Lang")
		fmt.Fprintf(w, "lang %q", r.Header.Get("X-Lang"))
	})
	g := newRig(t, one("", u), nil)
	bodyOf(t, send(t, g, "GET", "/p", "X-Lang", "de", "Connection", "X-Lang"))
	if got := bodyOf(t, send(t, g, "GET", "/p", "X-Lang", "de")); got != `lang "de"` {
		t.Errorf("got %q", got)
	}
}

func TestCountryIsOurs(t *testing.T) {
	u, _ := counted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "X-Client-Country")
		fmt.Fprintf(w, "country %q", r.Header.Get("X-Client-Country"))
	})
	g := newRig(t, one("", u), nil)
	for _, country := range []string{"IE", "SG", ""} {
		g.place = geo.Place{Country: country}
		if got, want := bodyOf(t, send(t, g, "GET", "/p", "X-Client-Country", "XX")), fmt.Sprintf("country %q", country); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// CGI and its kin take X_Real_IP for X-Real-IP.
func TestLookalikesDoNotReachTheOrigin(t *testing.T) {
	u, _ := counted(t, func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if lookalike[http.CanonicalHeaderKey(name)] || name == "X_real_ip" || name == "X-Forwarded_for" || name == "X_forwarded_for" {
				t.Errorf("%s reached the origin", name)
			}
		}
		if r.Header.Get("X_plan") == "" {
			t.Error("an innocent field with an underscore is gone")
		}
	})
	g := newRig(t, one("", u), nil)
	send(t, g, "GET", "/p", "X_Real_IP", "1.1.1.1", "X-Forwarded_For", "1.1.1.1", "x_forwarded_for", "2.2.2.2", "X_Plan", "gold")
}
