package server

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"landfall/configs"
)

type wireRefusal struct {
	send   string
	status int
	reason string
}

func refusedOnTheWire() map[string]wireRefusal {
	const host = "Host: a.test\r\n"
	return map[string]wireRefusal{
		"no host":                {"GET / HTTP/1.1\r\n\r\n", 400, "missing_host"},
		"no host, HTTP/1.0":      {"GET / HTTP/1.0\r\n\r\n", 400, "missing_host"},
		"empty host":             {"GET / HTTP/1.1\r\nHost: \r\n\r\n", 400, "missing_host"},
		"two hosts":              {"GET / HTTP/1.1\r\n" + host + host + "\r\n", 400, "malformed_host"},
		"userinfo":               {"GET / HTTP/1.1\r\nHost: u@a.test\r\n\r\n", 400, "malformed_host"},
		"host with slash":        {"GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n", 400, "malformed_host"},
		"host with bad port":     {"GET / HTTP/1.1\r\nHost: a.test:99999\r\n\r\n", 400, "malformed_host"},
		"IPv6 zone":              {"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", 400, "malformed_host"},
		"absolute, other host":   {"GET http://b.test/ HTTP/1.1\r\n" + host + "\r\n", 400, "malformed_host"},
		"relative target":        {"GET x HTTP/1.1\r\n" + host + "\r\n", 400, "malformed_target"},
		"other scheme":           {"GET ftp://a.test/ HTTP/1.1\r\n" + host + "\r\n", 400, "malformed_target"},
		"star with GET":          {"GET * HTTP/1.1\r\n" + host + "\r\n", 400, "malformed_target"},
		"fragment":               {"GET /a#b HTTP/1.1\r\n" + host + "\r\n", 400, "malformed_request_line"},
		"space in target":        {"GET /a b HTTP/1.1\r\n" + host + "\r\n", 400, "malformed_request_line"},
		"tab in target":          {"GET /a\tb HTTP/1.1\r\n" + host + "\r\n", 400, "malformed_request_line"},
		"bad method":             {"G(T / HTTP/1.1\r\n" + host + "\r\n", 400, "malformed_request_line"},
		"HTTP/0.9":               {"GET /\r\n\r\n", 400, "malformed_request_line"},
		"HTTP/2 preface":         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"},
		"HTTP/1.2":               {"GET / HTTP/1.2\r\n" + host + "\r\n", 505, "version"},
		"many empty lines":       {"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", 400, "malformed_request_line"},
		"bare LF":                {"GET / HTTP/1.1\n" + host + "\r\n", 400, "bare_lf"},
		"bare CR in value":       {"GET / HTTP/1.1\r\n" + host + "A: b\rc\r\n\r\n", 400, "malformed_header"},
		"NUL in value":           {"GET / HTTP/1.1\r\n" + host + "A: b\x00c\r\n\r\n", 400, "malformed_header"},
		"folded":                 {"GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", 400, "folded_header"},
		"folded first":           {"GET / HTTP/1.1\r\n A: b\r\n" + host + "\r\n", 400, "folded_header"},
		"space before colon":     {"GET / HTTP/1.1\r\n" + host + "A : b\r\n\r\n", 400, "malformed_header"},
		"no colon":               {"GET / HTTP/1.1\r\n" + host + "A\r\n\r\n", 400, "malformed_header"},
		"length and chunked":     {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "ambiguous_framing"},
		"chunked in HTTP/1.0":    {"POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "ambiguous_framing"},
		"chunked twice":          {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "ambiguous_framing"},
		"other coding":           {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "unknown_transfer_coding"},
		"obscured coding":        {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n", 400, "malformed_header"},
		"two lengths":            {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400, "malformed_length"},
		"same length twice":      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, "malformed_length"},
		"length with sign":       {"POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", 400, "malformed_length"},
		"list of lengths":        {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc", 400, "malformed_length"},
		"huge length":            {"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", 400, "malformed_length"},
		"body too large":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1048577\r\n\r\n", 413, "body_too_large"},
		"too large but expected": {"POST / HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n", 413, "body_too_large"},
		"too many fields":        {"GET / HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 40) + "\r\n", 431, "too_many_headers"},
		"huge field":             {"GET / HTTP/1.1\r\n" + host + "A: " + strings.Repeat("b", 9<<10) + "\r\n\r\n", 431, "head_too_large"},
		"endless request line":   {"GET /" + strings.Repeat("b", 20<<10), 431, "head_too_large"},
		"CONNECT":                {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 405, "method"},
	}
}

// TestWireRefusals sends raw bytes and reads what comes back: refused ones are answered once and the connection closed.
func TestWireRefusals(t *testing.T) {
	h := start(t, nil)
	addr := h.http(func(w http.ResponseWriter, r *http.Request) { t.Errorf("let in: %s %s", r.Method, r.RequestURI) })
	for name, c := range refusedOnTheWire() {
		t.Run(name, func(t *testing.T) {
			before := counter(h.m.refusedRequests, c.reason)
			nc := dial(t, addr)
			send(t, nc, c.send)
			br := bufio.NewReader(nc)
			res, body := readResponse(t, br)
			if res.StatusCode != c.status || !res.Close {
				t.Errorf("got %d, close %v; want %d, close", res.StatusCode, res.Close, c.status)
			}
			wantContains(t, res.Header.Get("Proxy-Status"), "details="+c.reason)
			wantContains(t, body, "Request ")
			if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
				t.Errorf("behind the answer: %q, %v; want the end", rest, err)
			}
			if got := counter(h.m.refusedRequests, c.reason); got != before+1 {
				t.Errorf("refused_total{%s} rose by %v, want 1", c.reason, got-before)
			}
		})
	}
}

// TestWireAccepted sends raw bytes that are good, in one piece and byte by byte.
func TestWireAccepted(t *testing.T) {
	h := start(t, nil)
	addr := h.http(ok)
	for name, c := range map[string]struct{ send, want string }{
		"plain":           {"GET /a?b HTTP/1.1\r\nHost: A.Test\r\n\r\n", "ok GET a.test /a?b"},
		"leading CRLF":    {"\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "ok GET a.test /"},
		"absolute":        {"GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", "ok GET a.test /"},
		"absolute, path":  {"GET http://a.test:80/x?y HTTP/1.1\r\nHost: a.test:80\r\n\r\n", "ok GET a.test:80 /x?y"},
		"star":            {"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "ok OPTIONS a.test *"},
		"IPv6":            {"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "ok GET [::1]:80 /"},
		"length":          {"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc", "ok POST a.test /"},
		"chunked":         {"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nT: u\r\n\r\n", "ok POST a.test /"},
		"client's method": {"REFUSED / HTTP/1.1\r\nHost: a.test\r\n\r\n", "ok REFUSED a.test /"},
	} {
		t.Run(name, func(t *testing.T) {
			nc := dial(t, addr)
			br := bufio.NewReader(nc)
			for _, text := range []string{c.send, c.send} { // the connection goes on
				send(t, nc, text)
				if _, body := readResponse(t, br); body != c.want {
					t.Errorf("got %q, want %q", body, c.want)
				}
			}
			for i := range c.send {
				send(t, nc, c.send[i:i+1])
			}
			if _, body := readResponse(t, br); body != c.want {
				t.Errorf("byte by byte: got %q, want %q", body, c.want)
			}
		})
	}
}

// TestPipelined sends several requests at once, the last of them bad: each is answered in its turn.
func TestPipelined(t *testing.T) {
	h := start(t, nil)
	nc := dial(t, h.http(ok))
	send(t, nc, "POST /1 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"+
		"GET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n"+
		"POST /3 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello"+
		"GET /4 HTTP/1.1\r\nHost: a.test\r\nAccept: application/json\r\nHost: b.test\r\n\r\nGET /5 HTTP/1.1\r\nHost: a.test\r\n\r\n")
	br := bufio.NewReader(nc)
	for _, want := range []string{"ok POST a.test /1", "ok GET a.test /2", "ok POST a.test /3"} {
		if _, body := readResponse(t, br); body != want {
			t.Errorf("got %q, want %q", body, want)
		}
	}
	res, body := readResponse(t, br)
	if res.StatusCode != 400 {
		t.Errorf("got %d, want 400", res.StatusCode)
	}
	wantContains(t, body, `"error":"malformed_host"`, `"request_id":"`)
	if rest, _ := io.ReadAll(br); len(rest) > 0 {
		t.Errorf("behind the refusal: %q", rest)
	}
}

// TestMalformedChunk lets a handler see that the client's body is broken, and closes the connection.
func TestMalformedChunk(t *testing.T) {
	h := start(t, nil)
	errs := make(chan error, 1)
	nc := dial(t, h.http(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		errs <- err
		w.WriteHeader(http.StatusBadRequest)
	}))
	send(t, nc, "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0x1\r\nd\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if err := <-errs; err != ErrMalformedBody {
		t.Errorf("got %v, want ErrMalformedBody", err)
	}
	b, _ := io.ReadAll(nc)
	if n := strings.Count(string(b), "HTTP/1.1 "); n != 1 {
		t.Errorf("%d answers in %q, want 1", n, b)
	}
	if counter(h.m.refusedRequests, "malformed_chunk") != 1 {
		t.Error("malformed_chunk was not counted")
	}
}

// TestSlowHead answers a client that dawdles over its head, and drops one that says nothing.
func TestSlowHead(t *testing.T) {
	h := start(t, func(o *Options) { o.Limits.HeaderTimeout = configs.Duration(100 * time.Millisecond) })
	addr := h.http(ok)
	nc := dial(t, addr)
	send(t, nc, "GET / HTTP/1.1\r\nHost: a")
	if res, _ := readResponse(t, bufio.NewReader(nc)); res.StatusCode != 408 {
		t.Errorf("got %d, want 408", res.StatusCode)
	}
	silent := dial(t, addr)
	if b, err := io.ReadAll(silent); err != nil || len(b) > 0 {
		t.Errorf("a silent client got %q, %v; want the end", b, err)
	}
}

// TestIdleTimeout closes idle connections, by a limit that a reload has changed.
func TestIdleTimeout(t *testing.T) {
	h := start(t, nil)
	addr := h.http(ok)
	l := testLimits()
	l.IdleTimeout = configs.Duration(50 * time.Millisecond)
	h.s.SetLimits(l)
	nc := dial(t, addr)
	send(t, nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	br := bufio.NewReader(nc)
	readResponse(t, br)
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

// TestStalledH1 cuts a client that stops sending its body, and one that stops reading.
func TestStalledH1(t *testing.T) {
	h := start(t, func(o *Options) { o.Limits.IdleTimeout = configs.Duration(100 * time.Millisecond) })
	errs := make(chan error, 1)
	addr := h.http(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			_, err := io.ReadAll(r.Body)
			errs <- err
			return
		}
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				errs <- err
				return
			}
		}
	})
	nc := dial(t, addr)
	send(t, nc, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc")
	if err := <-errs; err == nil || counter(h.m.stalled, "read") != 1 {
		t.Errorf("read: %v, stalled %v; want an error, counted", err, counter(h.m.stalled, "read"))
	}
	nc = dial(t, addr)
	send(t, nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if err := <-errs; err == nil || counter(h.m.stalled, "write") != 1 {
		t.Errorf("write: %v, stalled %v; want an error, counted", err, counter(h.m.stalled, "write"))
	}
}
