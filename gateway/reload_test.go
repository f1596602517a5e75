package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/miekg/dns"

	"landfall/configs"
)

// blocking is an origin whose /slow waits to be let go, and whose /ws echoes.
func blocking(t testing.TB) (url string, begun chan struct{}, release chan struct{}) {
	begun, release = make(chan struct{}, 8), make(chan struct{})
	return origin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			_, _ = io.WriteString(w, "first half, ")
			w.(http.Flusher).Flush()
			begun <- struct{}{}
			select {
			case <-release:
				_, _ = io.WriteString(w, "second half")
			case <-r.Context().Done():
			}
		case "/ws":
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			for {
				kind, data, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), kind, data) != nil {
					return
				}
			}
		default:
			pathf("hello")(w, r)
		}
	}), begun, release
}

func aloneWith(u, routes, extra string) string {
	if !strings.Contains(extra, "observe") {
		extra += "\nobserve: {access_log: {path: off}}"
	}
	return fmt.Sprintf(`
listen: {http: ["127.0.0.1:0"]}
services:
  web:
    hosts: [shop.test]
    pools: {any: {origins: ["%s"]}}
    routes: [%s]
%s`, u, routes, extra)
}

const everything = `{match: {path: /*}, cache: off}`

func TestReloadRefusesABadFile(t *testing.T) {
	u := origin(t, pathf("hello"))
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), aloneWith(u, everything, ""))
	p := start(t, Options{ConfigFile: file})
	c := browser(t, p.listen["http"], nil)
	before, err := p.admin.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct{ text, want string }{
		{aloneWith(u, everything, "nonsense: 1"), "nonsense"},
		{aloneWith(u, `{match: {pth: /*}}`, "limits: {headers: many}"), "pth"},
		{aloneWith(u, everything, "fleet: other"), "fleet changed: that needs a restart"},
		{aloneWith(u, everything, "cache: {memory: 1MiB}"), "cache changed: that needs a restart"},
		{strings.Replace(aloneWith(u, everything, ""), "127.0.0.1:0", "127.0.0.2:0", 1), "listen changed"},
		{aloneWith(u, everything, "observe: {access_log: {path: absent/log}}"), "observe.access_log.path"},
		{"", "services"},
	} {
		write(t, file, bad.text)
		err := p.n.Reload()
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%v, want %q in it", err, bad.want)
			continue
		}
		now, _ := p.admin.Config(t.Context())
		if now.Hash != before.Hash || now.LastError != err.Error() {
			t.Errorf("after a refused reload: %+v", now)
		}
		if now.Loaded.IsZero() || !now.Loaded.Equal(before.Loaded) {
			t.Errorf("the config in force was loaded at %s, not at %s", before.Loaded, now.Loaded)
		}
		if resp, body := get(t, c, "GET", "http://shop.test/"); resp.StatusCode != 200 || body != "hello" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	if !p.hasEvent("config.refused ") {
		t.Error("no event tells of a refused config")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := p.n.Reload(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	write(t, file, aloneWith(u, everything, "limits: {headers: 100}"))
	if err := p.n.Reload(); err != nil {
		t.Fatal(err)
	}
	if now, _ := p.admin.Config(t.Context()); now.Hash == before.Hash || now.LastError != "" {
		t.Errorf("%+v", now)
	}
}

// What only a start can change is refused by its name, all at once.
func TestReloadableNamesWhatChanged(t *testing.T) {
	parse := func(text string) *configs.Config {
		t.Helper()
		c, err := configs.Parse("x", []byte(text+"services: {web: {hosts: [\"www.shop.example.com\"], pools: {any: {origins: [\"http://127.0.0.1:1\"]}}}}\n"), "/etc/landfall", nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const key = `MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=`
	base := "fleet: a\nregions: {eu: {}}\nlisten: {http: [\":80\"], https: [\":443\"], mesh: \":1\", peer: \":2\"}\n" +
		"mesh: {key: \"" + key + "\", tls: {ca: a, cert: b, key: c}}\ntls: {certificates: [{cert: a, key: b}]}\n"
	for _, c := range []struct{ old, new, want string }{
		{"fleet: a", "fleet: b", "fleet"},
		{"regions: {eu: {}}", "regions: {us: {}}", "regions (their names)"},
		{"regions: {eu: {}}", "regions: {eu: {}, us: {}}", "regions (their names)"},
		{`[":80"]`, `[":80", ":81"]`, "listen"},
		{`[":443"]`, `[":444"]`, "listen"},
		{`mesh: ":1"`, `mesh: ":3"`, "listen"},
		{`peer: ":2"`, `peer: ":3"`, "listen"},
		{key, "MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "mesh.key"},
		{"{ca: a,", "{ca: z,", "mesh.tls"},
		{"fleet: a", "fleet: a\ncache: {max_object: 1MiB}", "cache"},
		{"fleet: a", "fleet: a\ndns: {geoip: x.mmdb}", "dns.geoip (the path)"},
		{"fleet: a", "fleet: a\nobserve: {log_format: json}", "observe.log_format"},
		{"certificates: [{cert: a, key: b}]", "acme: {directory: \"https://acme.example.com/d\"}, certificates: [{cert: a, key: b}]", "tls.acme"},
	} {
		next := strings.Replace(base, c.old, c.new, 1)
		if next == base {
			t.Fatalf("%q is not in the config", c.old)
		}
		err := reloadable(parse(base), parse(next))
		if err == nil || err.Error() != c.want+" changed: that needs a restart of the node" || !errors.Is(err, errNeedsRestart) {
			t.Errorf("%s to %s: %v", c.old, c.new, err)
		}
	}
	for _, c := range []struct{ old, new string }{
		{"regions: {eu: {}}", "regions: {eu: {location: [1, 2]}}"}, {"fleet: a", "fleet: a\nlimits: {headers: 64}"},
		{`key: "` + key + `"`, `key: ["` + key + `", "MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]`},
		{"certificates: [{cert: a, key: b}]", "certificates: [{cert: c, key: d}]"}, {"fleet: a", "fleet: a\nhealth: {panic: 10%}"},
	} {
		if err := reloadable(parse(base), parse(strings.Replace(base, c.old, c.new, 1))); err != nil {
			t.Errorf("%s to %s: %v", c.old, c.new, err)
		}
	}
	two := strings.NewReplacer("fleet: a", "fleet: b", "eu: {}", "us: {}").Replace(base)
	if err := reloadable(parse(base), parse(two)); err == nil || strings.Count(err.Error(), "needs a restart") != 2 {
		t.Errorf("not all at once: %v", err)
	}
}

// A good file swaps the routes under living connections: nothing that is under way is cut.
func TestReloadKeepsConnections(t *testing.T) {
	u, begun, release := blocking(t)
	dir := t.TempDir()
	log := "observe: {access_log: {path: access.log, sample: 100%}}"
	file := write(t, filepath.Join(dir, "fleet.yaml"), aloneWith(u, `{match: {path: /slow}}, {match: {path: /ws}}`, log))
	p := start(t, Options{ConfigFile: file})
	c := browser(t, p.listen["http"], nil)
	if resp, _ := get(t, c, "GET", "http://shop.test/new"); resp.StatusCode != 404 {
		t.Fatalf("%d before the reload", resp.StatusCode)
	}
	slow := make(chan string, 1)
	go func() {
		resp, err := browser(t, p.listen["http"], nil).Get("http://shop.test/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		slow <- fmt.Sprint(string(b), err)
	}()
	receive(t, "the long request", begun)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "http://shop.test/ws", &websocket.DialOptions{HTTPClient: c})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()

	other := origin(t, pathf("from the other origin"))
	write(t, file, aloneWith(other, everything, log))
	if err := p.n.Reload(); err != nil {
		t.Fatal(err)
	}
	reused := false
	r, _ := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}), "GET", "http://shop.test/new", nil)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || string(b) != "from the other origin" || !reused {
		t.Errorf("after the reload: %d %s, connection kept: %v", resp.StatusCode, b, reused)
	}
	if err := ws.Write(ctx, websocket.MessageText, []byte("still there?")); err != nil {
		t.Error(err)
	}
	if _, got, err := ws.Read(ctx); err != nil || string(got) != "still there?" {
		t.Errorf("the WebSocket after the reload: %q %v", got, err)
	}
	close(release)
	if got := receive(t, "the long request's end", slow); got != "first half, second half<nil>" {
		t.Errorf("the long request: %s", got)
	}
	eventually(t, "the access log has the request that began before the reload", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "access.log"))
		return strings.Contains(string(b), `"path":"/slow"`) && strings.Contains(string(b), `"path":"/new"`)
	})
}

// Services come and go under traffic, so that their places in the snapshot shift: no request is lost or sent astray.
func TestReloadUnderTraffic(t *testing.T) {
	a, b := origin(t, pathf("a")), origin(t, pathf("b"))
	text := func(with bool) string {
		s := fmt.Sprintf("listen: {http: [\"127.0.0.1:0\"]}\nobserve: {access_log: {path: off}}\nservices:\n  mmm: {hosts: [m.test], pools: {any: {origins: [%q]}}}\n", a)
		if with {
			s += fmt.Sprintf("  aaa: {hosts: [a.test], pools: {any: {origins: [%q]}}}\n", b)
		}
		return s
	}
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), text(false))
	p := start(t, Options{ConfigFile: file})
	var done atomic.Bool
	var wg sync.WaitGroup
	var served atomic.Int64
	for range 3 {
		wg.Go(func() {
			c := browser(t, p.listen["http"], nil)
			for !done.Load() {
				resp, err := c.Get("http://m.test/")
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || string(body) != "a" {
					t.Errorf("%d %q %v", resp.StatusCode, body, err)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := range 20 {
		write(t, file, text(i%2 == 0))
		if err := p.n.Reload(); err != nil {
			t.Error(err)
		}
		begun := served.Load()
		eventually(t, "traffic goes on", func() bool { return served.Load() > begun+5 || t.Failed() })
	}
	done.Store(true)
	wg.Wait()
}

// A reload that one file spoils changes nothing at all: not the DNS zones, not the certificates, not the routes.
func TestReloadIsAllOrNothing(t *testing.T) {
	s := newSite(t, "node-1")
	u := origin(t, pathf("hello"))
	text := func(ttl, cert, match string) string {
		return fmt.Sprintf(`
listen: {http: ["127.0.0.1:0"], https: ["127.0.0.1:0"], http_redirect: false, dns: ["127.0.0.1:0"]}
dns: {zones: {shop.test: {ttl: %[1]s, min_ttl: %[1]s}}}
tls: {certificates: [{cert: %[2]s.pem, key: web.key}]}
services: {web: {hosts: [shop.test], pools: {any: {origins: [%[3]q]}}, routes: [{match: {path: %[4]s}}]}}
`, ttl, cert, u, match)
	}
	file := write(t, s.file("fleet.yaml"), text("7s", "web", "/old"))
	p := start(t, Options{ConfigFile: file})
	ttl := func() uint32 {
		m := new(dns.Msg)
		m.SetQuestion("shop.test.", dns.TypeA)
		in, _, err := (&dns.Client{Net: "tcp"}).Exchange(m, p.listen["dns"])
		if err != nil || len(in.Answer) == 0 {
			t.Fatalf("%v %v", in, err)
		}
		return in.Answer[0].Header().Ttl
	}
	write(t, file, text("9s", "absent", "/new"))
	if err := p.n.Reload(); err == nil || !strings.Contains(err.Error(), "absent.pem") {
		t.Fatalf("%v", err)
	}
	c := browser(t, p.listen["https"], s.trust)
	for path, want := range map[string]int{"/old": 200, "/new": 404} {
		if resp, _ := get(t, c, "GET", "https://shop.test"+path); resp.StatusCode != want {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if got := ttl(); got != 7 {
		t.Errorf("the refused config's TTL is in force: %d", got)
	}
	s.issue(t, "web", "shop.test", "new.test")
	write(t, file, text("9s", "web", "/new"))
	if err := p.n.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := ttl(); got != 9 || !p.n.hasCert("new.test") {
		t.Errorf("after a good reload: TTL %d, certificate %v", got, p.n.hasCert("new.test"))
	}
}
