package server

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestWriter holds what handlers may expect of their writer, over both protocols.
func TestWriter(t *testing.T) {
	h := start(t, nil)
	content := bytes.Repeat([]byte("0123456789abcdef"), 20<<10) // 320 KiB
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/write":
			_, _ = w.Write(content)
		case "/copy":
			_, _ = io.Copy(w, bytes.NewReader(content))
		case "/hints":
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusAccepted)
			w.WriteHeader(http.StatusTeapot) // comes too late
		case "/trailer":
			w.Header().Set("Trailer", "Sum")
			w.(http.Flusher).Flush()
			w.Header().Set("Sum", "42")
		case "/hijack":
			if _, _, err := http.NewResponseController(w).Hijack(); r.ProtoMajor == 2 && !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("hijack over HTTP/2: %v", err)
			}
		case "/echo":
			_, _ = io.Copy(w, r.Body)
		}
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	for base, rt := range map[string]http.RoundTripper{"http://" + h.http(handler): tr, "https://" + h.https(handler): h.h2()} {
		for _, path := range []string{"/write", "/copy"} {
			if _, body := get(t, rt, base+path); body != string(content) {
				t.Errorf("%s%s: %d bytes, want %d", base, path, len(body), len(content))
			}
		}
		if res, _ := get(t, rt, base+"/hints"); res.StatusCode != http.StatusAccepted {
			t.Errorf("%s: got %d, want 202", base, res.StatusCode)
		}
		if res, _ := get(t, rt, base+"/trailer"); res.Trailer.Get("Sum") != "42" {
			t.Errorf("%s: trailer %v", base, res.Trailer)
		}
		if strings.HasPrefix(base, "https") {
			get(t, rt, base+"/hijack")
		}
		req, _ := http.NewRequest("POST", base+"/echo", bytes.NewReader(content))
		req.Header.Set("Expect", "100-continue")
		res, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(body, content) {
			t.Errorf("%s: echoed %d bytes, %v; want %d", base, len(body), err, len(content))
		}
	}
}

func TestAcceptsJSON(t *testing.T) {
	for accept, want := range map[string]bool{"": false, "*/*": false, "application/json": true, "text/html, application/json": false,
		"application/problem+json, text/plain": true} {
		if got := acceptsJSON([]string{accept}); got != want {
			t.Errorf("%q: %v, want %v", accept, got, want)
		}
	}
}
