package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"landfall/configs"
)

func TestClientRoundTrip(t *testing.T) {
	b := &fakeBackend{}
	s := serve(t, b, func(o *Options) { o.Admin.Tokens = []configs.Token{token(t, "deploy", "do", "read", "drain", "purge")} })
	c := NewClient(strings.TrimPrefix(s.url, "http://")+"/", "do", nil)
	defer c.Close()
	ctx := t.Context()
	same := func(name string, got any, err error, want any) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, want)
		}
	}
	status, err := c.Status(ctx)
	same("Status", status, err, b.Status())
	regions, err := c.Regions(ctx)
	same("Regions", regions, err, b.Regions())
	nodes, err := c.Nodes(ctx)
	same("Nodes", nodes, err, b.Nodes())
	services, err := c.Services(ctx)
	same("Services", services, err, b.Services())
	pools, err := c.Pools(ctx, "shop")
	wantPools, _ := b.Pools("shop")
	same("Pools", pools, err, wantPools)
	stats, err := c.Cache(ctx)
	same("Cache", stats, err, b.Cache())
	certs, err := c.Certs(ctx)
	same("Certs", certs, err, b.Certs())
	config, err := c.Config(ctx)
	same("Config", config, err, b.Config())
	client := netip.MustParseAddr("2001:db8::7")
	explanation, err := c.Explain(ctx, "shop.example.com", client)
	wantExplanation, _ := b.Explain("https://shop.example.com/", client)
	same("Explain", explanation, err, wantExplanation)
	explanation, err = c.Explain(ctx, "http://shop.example.com/cart?a=1&b=2", netip.Addr{})
	wantExplanation, _ = b.Explain("http://shop.example.com/cart?a=1&b=2", netip.Addr{})
	same("Explain", explanation, err, wantExplanation)

	target := DrainTarget{DrainRegion, "us-east"}
	set, err := c.Drain(ctx, target, DrainSpec{For: Duration(90 * time.Minute), Reason: "works <&> more", Force: true}, time.Second)
	drain := Drain{DrainTarget: target, Reason: "works <&> more", By: "deploy", Since: noon(), Expires: noon().Add(90 * time.Minute)}
	same("Drain", set, err, DrainResult{DrainTarget: target, Drained: true, Changed: true, Drain: &drain, Applied: []string{"eu-1"}, Missing: []string{}})
	drains, err := c.Drains(ctx)
	same("Drains", drains, err, []Drain{drain})
	set, err = c.Undrain(ctx, target, 0)
	same("Undrain", set, err, DrainResult{DrainTarget: target, Changed: true, Applied: []string{"eu-1"}, Missing: []string{}})

	purged, err := c.Purge(ctx, PurgeRequest{Service: "shop", URLs: []string{"https://shop.example.com/a"}, Soft: true}, WaitAll, time.Second)
	same("Purge", purged, err, b.last)
	purged, err = c.PurgeByID(ctx, "p1")
	same("PurgeByID", purged, err, b.last)

	s.log.Add("drain.set", "us-east", "by deploy")
	events, err := c.Events(ctx, 0, 5)
	if err != nil || details(events) != "by deploy" {
		t.Errorf("Events: %v %v", events, err)
	}
	if events, err = c.Events(ctx, events[0].Seq, 0); err != nil || len(events) != 0 {
		t.Errorf("Events since: %v %v", events, err)
	}
	if doc, err := c.OpenAPI(ctx); err != nil || !strings.HasPrefix(string(doc), "{") {
		t.Errorf("OpenAPI: %.20s %v", doc, err)
	}
	if text, err := c.Metrics(ctx); err != nil || !strings.Contains(string(text), "landfall_admin_requests_total") {
		t.Errorf("Metrics: %.20s %v", text, err)
	}
	if err := errors.Join(c.Health(ctx), c.Ready(ctx)); err != nil {
		t.Error(err)
	}
}

func TestClientErrors(t *testing.T) {
	b := &fakeBackend{ready: []string{"registers of a peer"}}
	s := serve(t, b, nil)
	c := NewClient(s.url, "", nil)
	defer c.Close()
	ctx := t.Context()
	var p *Problem
	if _, err := c.Pools(ctx, "shop/../x y"); !errors.As(err, &p) || p.Status != 404 || !strings.Contains(err.Error(), `"shop/../x y"`) {
		t.Errorf("unknown service: %v", err)
	}
	if err := c.Ready(ctx); !errors.As(err, &p) || p.Status != 503 || err.Error() != "the node is not ready: registers of a peer" {
		t.Errorf("not ready: %v", err)
	}
	if _, err := c.Purge(ctx, PurgeRequest{Service: "shop", URLs: []string{"/cart"}}, "", 0); !errors.As(err, &p) ||
		err.Error() != `the request is not valid: urls[0]: "/cart" is not an http or https URL; write it like https://shop.example.com/cart` {
		t.Errorf("bad URL: %v", err)
	}
	if _, err := c.Drain(ctx, DrainTarget{"origin", "x"}, DrainSpec{}, 0); err == nil {
		t.Error("an origin was drained")
	}
	if _, err := NewClient("http://bad host", "", nil).Status(ctx); err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("bad address: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Status(cancelled); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestClientUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr().String()
	silent, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c := NewClient(base, "", nil)
	defer c.Close()
	if _, err := c.Status(silent); !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answers: %v", err)
	}
	l.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.HasPrefix(err.Error(), "the node can not be reached at "+base) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestClientMeetsSomethingElse(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.URL.Path+" "+r.Header.Get("Authorization"))
		switch r.URL.Path {
		case "/v1/status":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/v1/cache":
			io.WriteString(w, "<html>")
		case "/v1/config":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		default:
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, "<h1>Bad\x1b[2J gateway</h1>")
		}
	}))
	defer server.Close()
	c := NewClient(server.URL, "secret", server.Client())
	var p *Problem
	if _, err := c.Status(t.Context()); !errors.As(err, &p) || p.Status != http.StatusFound {
		t.Errorf("redirect: %v", err)
	}
	if len(got) != 1 {
		t.Errorf("the client followed: %q", got)
	}
	if _, err := c.Cache(t.Context()); err == nil || errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "is it a Landfall admin address?") {
		t.Errorf("HTML: %v", err)
	}
	if _, err := c.Config(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("broken off: %v", err)
	}
	if _, err := c.Nodes(t.Context()); !errors.As(err, &p) || p.Status != 502 || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("gateway: %q", err)
	}
}

func FuzzParseProblem(f *testing.F) {
	f.Add(404, "application/problem+json", []byte(`{"title":"Not found","status":200,"errors":[{"field":"a"}]}`))
	f.Add(502, "text/html", []byte("<h1>"))
	f.Add(999, "application/problem+json", []byte("null"))
	f.Fuzz(func(t *testing.T, status int, contentType string, data []byte) {
		p := parseProblem(status, contentType, data)
		if p.Status != status || p.Title == "" || p.Error() == "" {
			t.Errorf("%+v", p)
		}
		if strings.ContainsAny(p.Error(), "\x1b\n\r") {
			t.Errorf("control characters in %q", p.Error())
		}
	})
}
