package lab

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

// labOnPaper is a lab without processes.
func labOnPaper(t *testing.T) *Lab {
	t.Helper()
	return &Lab{fleet: planned(t, 0, 3, 2), processes: map[string]*process{}}
}

func TestControlRefusesBrowsersAndStrangers(t *testing.T) {
	h := labOnPaper(t).controlHandler()
	for _, c := range []struct {
		name, method, path, host, origin string
		status                           int
		text                             string
	}{
		{"what runs", "GET", "/lab", "127.0.0.1:9900", "", 200, `"host":"shop.lab.test"`},
		{"by localhost", "GET", "/lab", "localhost:9900", "", 200, `"regions"`},
		{"of another net", "GET", "/lab", "127.9.0.1:9900", "", 200, `"regions"`},
		{"from a page", "GET", "/lab", "127.0.0.1:9900", "https://evil.example", 403, "not for browsers"},
		{"a kill from a page", "POST", "/lab/regions/eu-west/kill", "127.0.0.1:9900", "https://evil.example", 403, "not for browsers"},
		{"a kill from a page without a name", "POST", "/lab/regions/eu-west/kill", "127.0.0.1:9900", "null", 403, "not for browsers"},
		{"rebound DNS", "GET", "/lab", "evil.example:9900", "", 403, "not for browsers"},
		{"rebound DNS, a kill", "POST", "/lab/regions/eu-west/kill", "evil.example:9900", "", 403, "not for browsers"},
		{"no host", "GET", "/lab", "", "", 403, "not for browsers"},
		{"a kill", "POST", "/lab/regions/eu-west/kill", "127.0.0.1:9900", "", 200, ""},
		{"an unknown region", "POST", "/lab/regions/mars/kill", "127.0.0.1:9900", "", 404, `the lab has no region "mars"`},
		{"an unknown region to start", "POST", "/lab/regions/mars/start", "127.0.0.1:9900", "", 404, `the lab has no region "mars"`},
		{"a kill by GET", "GET", "/lab/regions/eu-west/kill", "127.0.0.1:9900", "", 405, ""},
		{"something else", "POST", "/lab/regions/eu-west/explode", "127.0.0.1:9900", "", 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.path, nil)
			r.Host = c.host
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) {
				t.Errorf("%d %s, want %d with %q", w.Code, w.Body, c.status, c.text)
			}
		})
	}
}

func TestControlRefusesWhileStopping(t *testing.T) {
	l := labOnPaper(t)
	l.stopping = true
	r := httptest.NewRequest("POST", "/lab/regions/eu-west/start", nil)
	r.Host = "127.0.0.1:9900"
	w := httptest.NewRecorder()
	l.controlHandler().ServeHTTP(w, r)
	if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "the lab is stopping") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestControlTalksToALab(t *testing.T) {
	l := labOnPaper(t)
	s := httptest.NewServer(l.controlHandler())
	defer s.Close()
	c := Control{Addr: s.Listener.Addr().String(), Client: s.Client()}
	got, err := c.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := l.Fleet()
	for i := range want.Regions {
		want.Regions[i].place = place{} // stays in the lab
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the fleet changed on its way:\n%+v\n%+v", got, want)
	}
	if err := c.KillRegion(t.Context(), "eu-west"); err != nil {
		t.Error(err)
	}
	for _, do := range []func(context.Context, string) error{c.KillRegion, c.StartRegion} {
		if err := do(t.Context(), "a/b?c"); err == nil || !strings.Contains(err.Error(), `the lab refused: the lab has no region "a/b?c"`) {
			t.Errorf("an unknown region: %v", err)
		}
	}
}

func TestControlTellsNoLabFromABrokenOne(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	_ = free.Close()
	if _, err := (Control{Addr: addr, Client: &http.Client{}}).Fleet(t.Context()); !errors.Is(err, ErrNoLab) || !strings.Contains(err.Error(), "start one with `landfall lab`") {
		t.Errorf("nothing listens: %v", err)
	}
	for name, body := range map[string]string{"not JSON": "hello", "no regions": "{}"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		defer s.Close()
		if _, err := (Control{Addr: s.Listener.Addr().String(), Client: s.Client()}).Fleet(t.Context()); err == nil || errors.Is(err, ErrNoLab) || !strings.Contains(err.Error(), "is not a lab") {
			t.Errorf("%s: %v", name, err)
		}
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := (Control{Addr: silent.Addr().String(), Client: &http.Client{Timeout: 50 * time.Millisecond}}).Fleet(t.Context()); err == nil || errors.Is(err, ErrNoLab) {
		t.Errorf("a lab that hangs: %v", err)
	}
}
