package server

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"landfall/configs"
)

// wire speaks HTTP/2 frame by frame.
type wire struct {
	t    testing.TB
	c    *tls.Conn
	fr   *http2.Framer
	hbuf bytes.Buffer
	enc  *hpack.Encoder
}

// dialWire opens an HTTP/2 connection and exchanges settings.
func (h *harness) dialWire(addr string, settings ...http2.Setting) *wire {
	h.t.Helper()
	c := h.dialTLS(addr, "h2")
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	w := &wire{t: h.t, c: c, fr: http2.NewFramer(c, c)}
	w.enc = hpack.NewEncoder(&w.hbuf)
	w.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	send(h.t, c, http2.ClientPreface)
	if err := w.fr.WriteSettings(settings...); err != nil {
		h.t.Fatal(err)
	}
	w.await(func(f http2.Frame) bool {
		s, ok := f.(*http2.SettingsFrame)
		if ok && !s.IsAck() {
			_ = w.fr.WriteSettingsAck()
		}
		return ok && s.IsAck()
	})
	return w
}

// await reads frames until one is wanted, which it returns; nil when the connection ended before.
func (w *wire) await(want func(http2.Frame) bool) http2.Frame {
	w.t.Helper()
	for {
		f, err := w.fr.ReadFrame()
		if err != nil {
			return nil
		}
		if want(f) {
			return f
		}
	}
}

// request opens a stream with the given header fields.
func (w *wire) request(id uint32, end bool, kv ...string) {
	w.t.Helper()
	w.hbuf.Reset()
	for i := 0; i < len(kv); i += 2 {
		_ = w.enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	if err := w.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.hbuf.Bytes(), EndStream: end, EndHeaders: true}); err != nil {
		w.t.Fatal(err)
	}
}

// status waits for the response of a stream: its status, or "reset".
func (w *wire) status(id uint32) string {
	w.t.Helper()
	got := ""
	w.await(func(f http2.Frame) bool {
		if f.Header().StreamID != id {
			return false
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			got = f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			got = "reset"
		}
		return got != ""
	})
	return got
}

func TestH2Refusals(t *testing.T) {
	h := start(t, nil)
	addr := h.https(ok)
	w := h.dialWire(addr)
	basic := func(method, path, authority string, more ...string) []string {
		return append([]string{":method", method, ":scheme", "https", ":path", path, ":authority", authority}, more...)
	}
	id := uint32(1)
	for name, c := range map[string]struct {
		fields []string
		want   string
	}{
		"good":            {basic("GET", "/", "A.test"), "200"},
		"scheme http":     {[]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a.test"}, "200"},
		"no authority":    {[]string{":method", "GET", ":scheme", "https", ":path", "/"}, "400"},
		"bad authority":   {basic("GET", "/", "a.test/b"), "400"},
		"userinfo":        {basic("GET", "/", "u@a.test"), "reset"},
		"other host":      {basic("GET", "/", "a.test", "host", "b.test"), "400"},
		"same host":       {basic("GET", "/", "a.test", "host", "a.test"), "200"},
		"host alone":      {[]string{":method", "GET", ":scheme", "https", ":path", "/", "host", "a.test"}, "200"},
		"two hosts":       {[]string{":method", "GET", ":scheme", "https", ":path", "/", "host", "a.test", "host", "a.test"}, "400"},
		"space in path":   {basic("GET", "/a b", "a.test"), "400"},
		"fragment":        {basic("GET", "/a#b", "a.test"), "400"},
		"relative path":   {basic("GET", "a", "a.test"), "reset"},
		"star":            {basic("GET", "*", "a.test"), "400"},
		"trace":           {basic("TRACE", "/", "a.test"), "405"},
		"connection":      {basic("GET", "/", "a.test", "connection", "close"), "400"},
		"two lengths":     {basic("POST", "/", "a.test", "content-length", "0", "content-length", "1"), "400"},
		"no such body":    {basic("POST", "/", "a.test", "content-length", "5"), "400"},
		"upper-case name": {basic("GET", "/", "a.test", "Abc", "d"), "reset"},
		"NUL in value":    {basic("GET", "/", "a.test", "abc", "d\x00"), "reset"},
		"many fields":     {append(basic("GET", "/", "a.test"), strings.Split(strings.Repeat("a,b,", 40), ",")[:80]...), "431"},
		"large fields":    {basic("GET", "/", "a.test", "a", strings.Repeat("d", 3<<10), "b", strings.Repeat("d", 3<<10), "c", strings.Repeat("d", 3<<10)), "431"},
	} {
		w.request(id, true, c.fields...)
		if got := w.status(id); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		id += 2
	}
	w.request(id, false, basic("POST", "/", "a.test", "content-length", "1048577")...)
	if got := w.status(id); got != "413" {
		t.Errorf("large body: got %q, want 413", got)
	}
	if got := value(h.m.inFlight); got != 0 {
		t.Errorf("requests_in_flight is %v at rest", got)
	}
}

func TestH2Errors(t *testing.T) {
	h := start(t, nil)
	w := h.dialWire(h.https(ok))
	if err := w.fr.WriteWindowUpdate(7, 1); err != nil { // on an idle stream
		t.Fatal(err)
	}
	f := w.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway })
	if f == nil || f.(*http2.GoAwayFrame).ErrCode != http2.ErrCodeProtocol {
		t.Errorf("got %v, want GOAWAY with PROTOCOL_ERROR", f)
	}
	if counter(h.m.h2Errors, "conn_PROTOCOL_ERROR_stream_idle") != 1 {
		t.Error("the error was not counted")
	}
}

// TestBodyLimit bounds bodies whose length nobody declared.
func TestBodyLimit(t *testing.T) {
	h := start(t, func(o *Options) { o.Limits.Body = 1000 })
	handler := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}
	plain, secure := h.http(handler), h.https(handler)
	for size, want := range map[int]int{1000: 200, 1001: 413} {
		body := func() io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", size))) } // hides its length
		req, _ := http.NewRequest("POST", "http://"+plain+"/", body())
		tr := &http.Transport{}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		tr.CloseIdleConnections()
		if res.StatusCode != want {
			t.Errorf("HTTP/1.1, %d bytes: got %d, want %d", size, res.StatusCode, want)
		}
		req, _ = http.NewRequest("POST", "https://"+secure+"/", body())
		res, err = h.h2().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("HTTP/2, %d bytes: got %d, want %d", size, res.StatusCode, want)
		}
	}
}

// TestStalledH2 cuts streams whose client takes or sends nothing, while others of the connection go on.
func TestStalledH2(t *testing.T) {
	h := start(t, func(o *Options) { o.Limits.IdleTimeout = configs.Duration(200 * time.Millisecond) })
	errs := make(chan error, 1)
	addr := h.https(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/read":
			_, err := io.ReadAll(r.Body)
			errs <- err
		case "/write":
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 100<<10))
			}
			errs <- err
		case "/last": // small enough to be written when the handler is gone
			_, _ = io.WriteString(w, "last")
		}
	})
	fields := []string{":method", "POST", ":scheme", "https", ":authority", "a.test", ":path"}
	w := h.dialWire(addr)
	w.request(1, false, append(fields, "/read")...)
	if err := <-errs; err == nil || counter(h.m.stalled, "read") != 1 {
		t.Errorf("read: %v, stalled %v", err, counter(h.m.stalled, "read"))
	}
	w = h.dialWire(addr)
	w.request(1, true, append(fields, "/write")...)
	if err := <-errs; err == nil || counter(h.m.stalled, "write") != 1 {
		t.Errorf("write: %v, stalled %v", err, counter(h.m.stalled, "write"))
	}
	w = h.dialWire(addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	w.request(1, true, append(fields, "/last")...)
	if w.await(func(http2.Frame) bool { return false }) != nil || counter(h.m.stalled, "write") != 2 {
		t.Errorf("last bytes: stalled %v", counter(h.m.stalled, "write"))
	}
}
