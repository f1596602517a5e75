package server

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func empty(http.ResponseWriter, *http.Request) {}

const benchRequest = "GET /index.html?a=b HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: bench/1.0 (a browser says more)\r\n" +
	"Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"

func benchH1(b *testing.B, addr string) {
	nc := dial(b, addr)
	_ = nc.SetDeadline(time.Time{})
	br := bufio.NewReader(nc)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(nc, benchRequest); err != nil {
			b.Fatal(err)
		}
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
		}
	}
}

// BenchmarkH1 is an empty request through the server; BenchmarkH1Plain through net/http alone, to compare.
func BenchmarkH1(b *testing.B) { benchH1(b, start(b, nil).http(empty)) }

func BenchmarkH1Plain(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(empty)}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	defer func() { s.Close(); <-done }()
	benchH1(b, l.Addr().String())
}

func benchH2(b *testing.B, h *harness, addr string) {
	tr := h.h2()
	req, _ := http.NewRequest("GET", "https://"+addr+"/index.html?a=b", nil)
	b.ReportAllocs()
	for b.Loop() {
		res, err := tr.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		res.Body.Close()
	}
}

// BenchmarkH2 is an empty request through the server, the client included; BenchmarkH2Plain through net/http alone.
func BenchmarkH2(b *testing.B) {
	h := start(b, nil)
	benchH2(b, h, h.https(empty))
}

func BenchmarkH2Plain(b *testing.B) {
	h := start(b, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(empty),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{h.ca.issue(b, "localhost")}}}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeTLS(l, "", "") }()
	defer func() { s.Close(); <-done }()
	benchH2(b, h, l.Addr().String())
}

// BenchmarkHead is the framing filter's judgement of one head.
func BenchmarkHead(b *testing.B) {
	raw := []byte(benchRequest)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		var scan headScanner
		end, no := scan.next(raw, 32<<10, 128)
		if no != nil {
			b.Fatal(no)
		}
		if _, no := parseHead(raw[:end]); no != nil {
			b.Fatal(no)
		}
	}
}
