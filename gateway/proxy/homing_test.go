package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"landfall/gateway/homes"
	"landfall/routing"
)

// named is an origin that says where it is and what it was told.
func named(t testing.TB, name string) string {
	return origin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Told", r.Header.Get("X-Landfall-Home")+"/"+r.Header.Get("X-Landfall-Moved-From"))
		w.Header().Set("Cookies", r.Header.Get("Cookie"))
		if strings.HasPrefix(r.URL.Path, "/only/") && r.URL.Path != "/only/"+name {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, name)
	})
}

// with puts keys into the service of a config of two.
func with(config, keys string) string { return strings.Replace(config, "    debug: true\n", keys, 1) }

// usersOf are users by their home on the ring of eu and us.
func usersOf(home string) string {
	ring := homes.NewRing(map[string]int{"eu": 1, "us": 1})
	for i := 0; ; i++ {
		if user := "u" + strconv.Itoa(i); ring.Home(homes.KeyOf(user)) == home {
			return user
		}
	}
}

// Writes go to the primary, wherever they come in, and reads stay; after a write the client's reads go there too, past the
// cache, for as long as the config says.
func TestPrimary(t *testing.T) {
	p := newPair(t, with(two(named(t, "eu"), named(t, "us")), "    primary: us\n    read_your_writes: 1m\n"))
	now := time.Now()
	p.eu.proxy.o.Now = func() time.Time { return now }
	ask := func(method, cookie, want string) *http.Response {
		t.Helper()
		var header []string
		if cookie != "" {
			header = []string{"Cookie: a=1; " + cookie + "; b=2"}
		}
		resp, body := p.eu.get(method, "/x", header...)
		if body != want && method != "HEAD" {
			t.Errorf("%s with %q was served in %s, want %s", method, cookie, body, want)
		}
		if cookie != "" && want == "us" && resp.Header.Get("Cookies") != "a=1; b=2" {
			t.Errorf("the origin sees the cookies %q", resp.Header.Get("Cookies"))
		}
		return resp
	}
	ask("GET", "", "eu")
	if c := ask("OPTIONS", "", "eu").Cookies(); len(c) != 0 {
		t.Errorf("a read sets %v", c)
	}
	set := ask("POST", "", "us").Cookies()
	if len(set) != 1 || set[0].Name != wroteCookie || set[0].MaxAge != 60 || !set[0].HttpOnly {
		t.Fatalf("%v", set)
	}
	wrote := wroteCookie + "=" + set[0].Value
	ask("GET", wrote, "us") // not what the cache has
	ask("GET", "", "eu")
	now = now.Add(2 * time.Minute)
	ask("GET", wrote, "eu")
	ask("GET", wroteCookie+"="+strconv.FormatInt(now.Add(time.Hour).UnixMilli(), 10), "eu") // no date of ours
	ask("GET", wroteCookie+"=x", "eu")
	if n := counters(t, p.eu)["landfall_directed_requests_total web us primary"]; n != 1 {
		t.Errorf("%g writes counted", n)
	}
}

// A write whose primary can't be reached is refused and goes nowhere else; reads are served.
func TestPrimaryAway(t *testing.T) {
	p := newPair(t, with(two(named(t, "eu"), refusing(t)), "    primary: us\n"))
	resp, body := p.eu.get("POST", "/x")
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "home_away") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, body := p.eu.get("GET", "/x"); body != "eu" {
		t.Errorf("a read was served in %q", body)
	}
	// The primary's own node doesn't pass a write on either.
	if resp, body := p.us.get("DELETE", "/x"); resp.StatusCode < 500 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

const affinity = "    affinity: {by: header:X-User, regions: {eu: 1, us: 1}}\n"

// A user's requests are served in the user's home, and the origin hears so; without a user they are served here.
func TestAffinity(t *testing.T) {
	p := newPair(t, with(two(named(t, "eu"), named(t, "us")), affinity))
	for _, method := range []string{"GET", "POST"} {
		for _, home := range []string{"eu", "us"} {
			resp, body := p.eu.get(method, "/"+method+home, "X-User: "+usersOf(home), "X-Landfall-Home: mars", "X-Landfall-Moved-From: mars")
			if body != home || resp.Header.Get("Told") != home+"/" {
				t.Errorf("%s of a user of %s was served in %s, which was told %q", method, home, body, resp.Header.Get("Told"))
			}
		}
	}
	if resp, body := p.eu.get("POST", "/", "X-Landfall-Home: mars"); body != "eu" || resp.Header.Get("Told") != "/" {
		t.Errorf("without a user: %s, told %q", body, resp.Header.Get("Told"))
	}
	got := counters(t, p.eu)
	if got["landfall_directed_requests_total web us ring"] != 2 || got["landfall_directed_requests_total web eu ring"] != 2 {
		t.Errorf("%v", got)
	}
}

// While a user's home is away the next region of the ring serves; a strict service refuses its writes.
func TestHomeAway(t *testing.T) {
	for name, keys := range map[string]string{"": affinity, "strict": strings.Replace(affinity, "}}", "}, strict: true}", 1)} {
		p := newPair(t, with(two(named(t, "eu"), refusing(t)), keys))
		user := usersOf("us")
		if _, body := p.eu.get("GET", "/read", "X-User: "+user); body != "eu" {
			t.Errorf("%s: a read was served in %q", name, body)
		}
		resp, body := p.eu.get("POST", "/write", "X-User: "+user)
		if name == "" && body != "eu" || name != "" && resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: a write got %d %q", name, resp.StatusCode, body)
		}
	}
}

// A drained home counts as away.
func TestHomeDrained(t *testing.T) {
	p := newPair(t, with(two(named(t, "eu"), named(t, "us")), affinity))
	s := *p.eu.proxy.o.Snapshot()
	s.Regions = append([]routing.Region(nil), s.Regions...)
	s.Regions[s.Region("us")].Drained = true
	drained := routing.NewSnapshot(s)
	p.eu.proxy.o.Snapshot = func() *routing.Snapshot { return drained }
	if _, body := p.eu.get("GET", "/", "X-User: "+usersOf("us")); body != "eu" {
		t.Errorf("served in %q", body)
	}
}

// During a migration both homes can be read: what the new one does not have comes from the old one.
func TestMigrationReadsBothHomes(t *testing.T) {
	p := newPair(t, with(two(named(t, "eu"), named(t, "us")), "    affinity: {by: header:X-User, regions: {eu: 1}, next: {us: 1}, handover: 0s}\n"))
	d := p.eu.proxy.o.Homes["web"]
	moveAll := func(to float64) {
		d.Take([]homes.Move{{Service: "web", Rings: d.Show().Rings, To: to, From: 1 - to, Since: time.Now().Add(-time.Minute)}}, nil)
	}
	ask := func(method, path string, status int, want string) *http.Response {
		t.Helper()
		resp, body := p.eu.get(method, path, "X-User: u1")
		if resp.StatusCode != status || body != want {
			t.Errorf("%s %s: %d from %s, want %d from %s", method, path, resp.StatusCode, body, status, want)
		}
		return resp
	}
	ask("POST", "/w1", 200, "eu")
	moveAll(1)
	if resp := ask("POST", "/w2", 200, "us"); resp.Header.Get("Told") != "us/eu" {
		t.Errorf("the new home was told %q", resp.Header.Get("Told"))
	}
	ask("GET", "/only/us", 200, "us")
	ask("GET", "/only/eu", 200, "eu")
	ask("GET", "/only/mars", 404, "us")
	ask("POST", "/only/eu", 404, "us") // a write has one home
	moveAll(0)
	ask("POST", "/w3", 200, "eu")
	got := counters(t, p.eu)
	if got["landfall_migration_old_reads_total found web"] != 1 || got["landfall_migration_old_reads_total missing web"] != 1 {
		t.Errorf("%v", got)
	}
}

// A write in its user's moment waits for it to pass, and goes to the new home; a read does not wait.
func TestWriteWaitsForTheMove(t *testing.T) {
	p := newPair(t, with(two(named(t, "eu"), named(t, "us")), "    affinity: {by: header:X-User, regions: {eu: 1}, next: {us: 1}, handover: 200ms}\n"))
	d := p.eu.proxy.o.Homes["web"]
	d.Take([]homes.Move{{Service: "web", Rings: d.Show().Rings, To: 1, Since: time.Now()}}, nil)
	if _, body := p.eu.get("POST", "/", "X-User: u1"); body != "us" {
		t.Errorf("the write went to %q", body)
	}
	if n := counters(t, p.eu)["landfall_migration_waits_total web"]; n != 1 {
		t.Errorf("%g writes waited", n)
	}
}

// When the lookup service fails for a user that nothing is known of, reads are served and writes refused.
func TestLookupFails(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/lost") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "us")
	}))
	defer s.Close()
	p := newPair(t, with(two(named(t, "eu"), named(t, "us")), "    affinity: {by: header:X-User, home: lookup, lookup: {url: '"+s.URL+"/{key}', timeout: 5s}}\n"))
	if _, body := p.eu.get("GET", "/a", "X-User: known"); body != "us" {
		t.Errorf("served in %q", body)
	}
	if _, body := p.eu.get("GET", "/b", "X-User: lost"); body != "eu" {
		t.Errorf("a read was served in %q", body)
	}
	if resp, body := p.eu.get("POST", "/c", "X-User: lost"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "home_unknown") {
		t.Errorf("a write got %d %s", resp.StatusCode, body)
	}
}

func TestWriters(t *testing.T) {
	var w writers
	now := time.Now()
	for i := range uint64(maxWriters + 100) {
		w.note(i, now.Add(time.Minute))
	}
	last := uint64(maxWriters + 99)
	if len(w.until) != maxWriters || !w.wrote(last, now) || w.wrote(last, now.Add(time.Hour)) || w.wrote(last, now) {
		t.Errorf("%d writers", len(w.until))
	}
}

// counters are the chain's counters, by name and the values of their labels.
func counters(t *testing.T, g *rig) map[string]float64 {
	t.Helper()
	families, err := g.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue()
		}
	}
	return out
}
