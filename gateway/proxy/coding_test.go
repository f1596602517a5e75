package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"landfall/cache"
	"landfall/gateway/compress"
)

// plainOf undoes a response's content coding.
func plainOf(t testing.TB, resp *http.Response, body string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(body)
	var err error
	switch coding := resp.Header.Get("Content-Encoding"); coding {
	case "":
	case "gzip":
		r, err = gzip.NewReader(r)
	case "br":
		r = brotli.NewReader(r)
	case "zstd":
		var z *zstd.Decoder
		z, err = zstd.NewReader(r)
		defer z.Close()
		r = z
	default:
		t.Fatalf("coding %q", coding)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tagOf is the entity tag of a coding's variant.
func tagOf(coding string) string {
	if coding == "" {
		return `"v1"`
	}
	return `"v1-` + coding + `"`
}

func accepts(coding string) []string {
	if coding == "" {
		return nil
	}
	return []string{"Accept-Encoding: " + coding}
}

// Whatever coding the first client takes, the origin is asked once for all: each variant is made once, is kept, and is
// for conditions, HEAD and ranges as if the origin had been asked for it.
func TestCodingsOfOneAnswer(t *testing.T) {
	if compress.HeaderCoded != cache.HeaderCoded {
		t.Fatal("compress and cache don't mean the same field")
	}
	for _, first := range []string{"", "gzip", "br", "zstd"} {
		t.Run("first "+first, func(t *testing.T) {
			u, n := counted(t, cacheable)
			g := newRig(t, one("", u), nil)
			g.get("GET", "/p", accepts(first)...)
			for _, coding := range []string{"zstd", "", "br", "gzip"} {
				var bodies [2]string
				for i := range bodies {
					resp, body := g.get("GET", "/p", accepts(coding)...)
					h := resp.Header
					if plainOf(t, resp, body) != page || h.Get("Etag") != tagOf(coding) || h.Get("Content-Encoding") != coding ||
						h.Get("Vary") != "Accept-Encoding" || h.Get("Content-Type") != "text/plain" || h.Get("Age") == "" || h.Get(cache.HeaderCoded) != "" {
						t.Errorf("%q: %d %v", coding, resp.StatusCode, h)
					}
					made := i == 0 && coding != first
					if s := h.Get("Cache-Status"); !strings.Contains(s, "landfall; hit; ttl=") || strings.Contains(s, "recoded") != made {
						t.Errorf("%q, request %d: %s", coding, i, s)
					}
					bodies[i] = body
				}
				if bodies[0] != bodies[1] {
					t.Errorf("%q differs by request", coding)
				}
			}
			conditions(t, g)
			if n.Load() != 1 {
				t.Errorf("%d requests at the origin", n.Load())
			}
			if resp, body := g.get("PURGE", "/p"); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"removed":4`) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
}

// conditions checks HEAD, If-None-Match, Range and If-Range of each coding.
func conditions(t *testing.T, g *rig) {
	t.Helper()
	all := []string{"", "gzip", "br", "zstd"}
	for _, coding := range all {
		resp, body := g.get("HEAD", "/p", accepts(coding)...)
		if resp.StatusCode != 200 || body != "" || resp.Header.Get("Etag") != tagOf(coding) || resp.ContentLength <= 0 {
			t.Errorf("HEAD of %q: %d %v", coding, resp.StatusCode, resp.Header)
		}
		for _, other := range all {
			resp, body := g.get("GET", "/p", append(accepts(coding), "If-None-Match: "+tagOf(other))...)
			want := 200
			if other == coding {
				want = 304
			}
			if resp.StatusCode != want || resp.Header.Get("Etag") != tagOf(coding) || want == 304 && (body != "" || resp.Header.Get("Vary") == "") {
				t.Errorf("%q with the tag of %q: %d %v", coding, other, resp.StatusCode, resp.Header)
			}
		}
		// A range is of the identity, whatever else the client takes; a coded variant's tag must not continue it.
		resp, body = g.get("GET", "/p", append(accepts(coding), "Range: bytes=2-5", "If-Range: "+tagOf(""))...)
		if resp.StatusCode != 206 || body != page[2:6] || resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Etag") != tagOf("") {
			t.Errorf("a range with %q: %d %q %v", coding, resp.StatusCode, body, resp.Header)
		}
		if coding == "" {
			continue
		}
		if resp, body = g.get("GET", "/p", append(accepts(coding), "Range: bytes=2-5", "If-Range: "+tagOf(coding))...); resp.StatusCode != 200 || plainOf(t, resp, body) != page {
			t.Errorf("If-Range with the tag of %q: %d", coding, resp.StatusCode)
		}
	}
}

// The first request for a variant may be a HEAD or a range: then it is made whole, and nothing is asked of the origin.
func TestFirstAskedForByParts(t *testing.T) {
	u, n := counted(t, cacheable)
	g := newRig(t, one("", u), nil)
	g.get("GET", "/p", "Accept-Encoding: br")
	if resp, body := g.get("GET", "/p", "Range: bytes=-4"); resp.StatusCode != 206 || body != page[len(page)-4:] {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if resp, _ := g.get("HEAD", "/p", "Accept-Encoding: gzip"); resp.StatusCode != 200 || resp.Header.Get("Content-Encoding") != "gzip" || resp.Header.Get("Etag") != `"v1-gzip"` {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := g.get("GET", "/p", "Accept-Encoding: zstd", `If-None-Match: "v1-zstd"`); resp.StatusCode != 304 {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if n.Load() != 1 {
		t.Errorf("%d requests at the origin", n.Load())
	}
}

// What the origin encoded, or forbids to transform, is the origin's to encode otherwise.
func TestOriginsOwnCodings(t *testing.T) {
	for name, header := range map[string]string{"encoded": "Content-Encoding: gzip", "no-transform": "Cache-Control: no-transform"} {
		u, n := counted(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "Accept-Encoding")
			field, value, _ := strings.Cut(header, ": ")
			if field == "Cache-Control" || r.Header.Get("Accept-Encoding") == "gzip" {
				w.Header().Add(field, value)
			}
			w.Header().Add("Cache-Control", "max-age=60")
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprintf(w, "%q %s", r.Header.Get("Accept-Encoding"), page)
		})
		g := newRig(t, one("", u), nil)
		g.get("GET", "/p", "Accept-Encoding: gzip")
		if resp, body := g.get("GET", "/p", "Accept-Encoding: br"); n.Load() != 2 || !strings.HasPrefix(plainOf(t, resp, body), `"br"`) {
			t.Errorf("%s: %d requests, %v", name, n.Load(), resp.Header)
		}
	}
}

// Many clients who want a variant at once have it made once.
func TestRecodedOnce(t *testing.T) {
	u, n := counted(t, cacheable)
	g := newRig(t, one("", u), nil)
	g.get("GET", "/p")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if resp, body := g.get("GET", "/p", "Accept-Encoding: br"); plainOf(t, resp, body) != page {
				t.Error("not the page")
			}
		})
	}
	wg.Wait()
	if st := g.cache.Stats(); n.Load() != 1 || st.Objects != 2 || st.Hits != 20 {
		t.Errorf("%d requests at the origin, %+v", n.Load(), st)
	}
}

// The shield recodes for the regions, and a region what it had from the shield.
func TestRecodedForPeers(t *testing.T) {
	u, n := counted(t, cacheable)
	config := fmt.Sprintf(`
regions: {eu: {}, us: {}}
cache: {shield: us}
services: {web: {hosts: [shop.test], pools: {any: {origins: [%s]}}}}
`, u)
	p := newPairOf(t, config, config, func(o *Options) { o.Purges = allKnown{} })
	for _, g := range []*rig{p.eu, p.us} {
		for _, coding := range []string{"br", "", "zstd"} {
			if resp, body := g.get("GET", "/p", accepts(coding)...); plainOf(t, resp, body) != page || resp.Header.Get("Etag") != tagOf(coding) {
				t.Errorf("%q: %d %v", coding, resp.StatusCode, resp.Header)
			}
		}
	}
	if n.Load() != 1 || p.us.cache.Stats().Misses != 0 {
		t.Errorf("%d requests at the origin; the shield: %+v", n.Load(), p.us.cache.Stats())
	}
}
