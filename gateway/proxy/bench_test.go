package proxy

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// sink is a client that takes everything.
type sink struct {
	h http.Header
	n int64
}

func (s *sink) Header() http.Header { return s.h }
func (s *sink) WriteHeader(int)     {}
func (s *sink) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	return len(p), nil
}

func kilobyte(cacheControl string) http.HandlerFunc {
	body := strings.Repeat("x", 1024)
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", cacheControl)
		_, _ = io.WriteString(w, body)
	}
}

func benchRig(b *testing.B, cacheControl string) *rig {
	config := strings.Replace(one("", origin(b, kilobyte(cacheControl))), "debug: true", "debug: false", 1)
	return newRig(b, config, func(o *Options) { o.Access = nil })
}

func benchRequest() *http.Request {
	r, err := http.NewRequest("GET", "http://shop.test/assets/app.js", nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	r.Header.Set("Accept", "*/*")
	r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
	r.RemoteAddr = "192.0.2.1:1234"
	return r
}

var benchConn = Conn{Remote: netip.MustParseAddr("192.0.2.1"), RequestID: testID}

// BenchmarkCacheHit is the chain alone: a hit of 1 KiB, no sockets. The request is made anew each time, as a server does.
func BenchmarkCacheHit(b *testing.B) {
	g := benchRig(b, "max-age=600")
	g.proxy.Serve(&sink{h: http.Header{}}, benchRequest(), benchConn)
	eventually(b, "the object is stored", func() bool { return g.cache.Stats().Objects == 1 })
	base := benchRequest()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		w := &sink{h: http.Header{}}
		r := base.Clone(base.Context())
		for pb.Next() {
			clear(w.h)
			r.Header["Accept-Encoding"] = base.Header["Accept-Encoding"]
			g.proxy.Serve(w, r, benchConn)
		}
	})
	if st := g.cache.Stats(); st.Misses != 1 {
		b.Errorf("%d misses", st.Misses)
	}
}

// BenchmarkCacheHitSockets is a hit of 1 KiB over HTTP/1.1 keep-alive connections, net/http's client included.
func BenchmarkCacheHitSockets(b *testing.B) {
	benchSockets(b, "max-age=600")
}

// BenchmarkProxied is a request of 1 KiB that goes to an origin, three sockets' ends included: client, node, origin.
func BenchmarkProxied(b *testing.B) {
	benchSockets(b, "no-store")
}

func benchSockets(b *testing.B, cacheControl string) {
	g := benchRig(b, cacheControl)
	tr := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, DialContext: (&net.Dialer{}).DialContext}
	defer tr.CloseIdleConnections()
	b.ReportAllocs()
	b.SetBytes(1024)
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 4096)
		for pb.Next() {
			r := benchRequest()
			r.Host, r.URL.Host = r.URL.Host, g.h1.Listener.Addr().String()
			resp, err := tr.RoundTrip(r)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.CopyBuffer(io.Discard, resp.Body, buf); err != nil || resp.StatusCode != http.StatusOK {
				b.Error(resp.StatusCode, err)
				return
			}
			_ = resp.Body.Close()
		}
	})
}

func BenchmarkHead(b *testing.B) {
	g := benchRig(b, "no-store")
	r := benchRequest()
	b.ReportAllocs()
	for b.Loop() {
		h, no := g.proxy.head(r, benchConn)
		if no == nil {
			_, no = g.proxy.route(h, nil)
		}
		if no != nil {
			b.Fatal(no)
		}
	}
}
