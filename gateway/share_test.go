package gateway

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"landfall/gateway/admin"
	"landfall/routing/mesh"
)

// sharedFleet is regions with nodes that share one cache, all in this process, on 127.0.net.0/24. extra is config at the
// top level.
func sharedFleet(t testing.TB, net, regions, nodes int, originURL, extra string) []*process {
	t.Helper()
	var hosts, names []string
	for r := range regions {
		for n := range nodes {
			hosts = append(hosts, fmt.Sprintf("127.0.%d.%d", net, 1+r*nodes+n))
			names = append(names, fmt.Sprintf("r%d-%d", r+1, n+1))
		}
	}
	port := ports(t, 4, hosts...)
	s := newSite(t, names...)
	var list []string
	for r := range regions {
		list = append(list, fmt.Sprintf("r%d: {}", r+1))
	}
	file := write(t, s.file("fleet.yaml"), fmt.Sprintf(`
fleet: test
regions: {%[7]s}
listen: {http: [":%[1]s"], mesh: ":%[2]s", peer: ":%[3]s"}
mesh: {key: "%[4]s", join: ["%[6]s:%[2]s"], tls: {ca: ca.pem, cert: "${NODE}.pem", key: "${NODE}.key"}}
services: {web: {hosts: [shop.test], purgers: [127.0.0.0/8], pools: {any: {origins: ["%[5]s"]}}}}
%[8]s
`, port[0], port[1], port[2], s.key, originURL, hosts[0], strings.Join(list, ", "), extra))
	var fleet []*process
	for i, host := range hosts {
		fleet = append(fleet, launch(t, Options{
			ConfigFile: file, Name: names[i], Region: strings.SplitN(names[i], "-", 2)[0], Bind: host, Admin: host + ":" + port[3],
			DataDir: filepath.Join(t.TempDir(), names[i]), Network: s.file(names[i] + ".network"),
		}))
	}
	for _, p := range fleet {
		p.awaitReady()
	}
	for _, p := range fleet {
		p.awaitNodes(len(fleet))
	}
	return fleet
}

// awaitNodes waits until a node reaches so many, itself included, and steers by them.
func (p *process) awaitNodes(count int) {
	p.t.Helper()
	eventually(p.t, "the nodes see each other", func() bool {
		reached, steered := 0, 0
		for _, m := range p.n.fleet.Members() {
			if m.Self || m.Reachable && m.State == mesh.Serving {
				reached++
			}
		}
		for _, r := range p.n.snapshot.Load().Regions {
			if !r.Dead {
				steered += len(r.Nodes)
			}
		}
		return reached == count && steered == count
	})
}

// counting is an origin that counts its requests, by path, and answers with a version and the headers given.
type counting struct {
	version atomic.Int64
	mu      sync.Mutex
	asked   map[string]int
	header  http.Header
	hold    chan struct{} // requests wait for its end; nil: they don't
	began   chan string   // told of each request, if there is room
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.asked[r.URL.Path]++
	for name, values := range c.header {
		w.Header()[name] = values
	}
	hold := c.hold
	c.mu.Unlock()
	version := c.version.Load()
	select {
	case c.began <- r.URL.Path:
	default:
	}
	if hold != nil {
		<-hold
	}
	fmt.Fprint(w, version)
}

func (c *counting) of(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[path]
}

func (c *counting) set(hold chan struct{}, header ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold, c.header = hold, http.Header{}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		c.header.Add(name, value)
	}
}

func newCounting() *counting {
	return &counting{asked: map[string]int{}, header: http.Header{}, began: make(chan string, 64)}
}

func clientsOf(t testing.TB, fleet []*process) (out []*http.Client) {
	for _, p := range fleet {
		out = append(out, browser(t, p.listen["http"], nil))
	}
	return out
}

// TestFleetAsksOnce: three regions of two nodes are asked for one object at once, by several clients each, and the origin
// is asked once; the answer is stored along the way, with its surrogate keys, and one purge takes it everywhere.
func TestFleetAsksOnce(t *testing.T) {
	c := newCounting()
	fleet := sharedFleet(t, 31, 3, 2, origin(t, c.ServeHTTP), "cache: {shield: r2}")
	clients := clientsOf(t, fleet)
	hold := make(chan struct{})
	c.set(hold, "Cache-Control: max-age=600", "Surrogate-Key: k,1 page")
	all := func(path, want string) {
		t.Helper()
		var wg sync.WaitGroup
		for _, client := range clients {
			for range 3 {
				wg.Go(func() {
					if resp, body := get(t, client, "GET", "http://shop.test"+path); body != want || resp.StatusCode != 200 {
						t.Errorf("%s: %d %q, want %q; %v", path, resp.StatusCode, body, want, resp.Header)
					}
				})
			}
		}
		if hold != nil {
			receive(t, "a request at the origin", c.began)
			close(hold)
			hold = nil
			c.set(nil, "Cache-Control: max-age=600", "Surrogate-Key: k,1 page")
		}
		wg.Wait()
	}
	all("/once", "0")
	if n := c.of("/once"); n != 1 {
		t.Errorf("the origin was asked %d times", n)
	}
	c.version.Store(1)
	all("/once", "0") // from the stores
	if n := c.of("/once"); n != 1 {
		t.Errorf("the origin was asked %d times in all", n)
	}
	// The surrogate key holds a comma, and came through peers all the same.
	res, err := fleet[5].n.purge(t.Context(), admin.PurgeRequest{Service: "web", Keys: []string{"k,1"}}, admin.WaitAll, "test")
	if err != nil || len(res.Missing) != 0 || len(res.Applied) != 6 || res.Removed < 3 {
		t.Fatalf("%+v %v", res, err)
	}
	all("/once", "1")
	if n := c.of("/once"); n != 2 {
		t.Errorf("the origin was asked %d times after the purge", n)
	}
}

// TestDeadPeerIsAMiss: the holder of a key dies without a word, and the others go on without an error.
func TestDeadPeerIsAMiss(t *testing.T) {
	c := newCounting()
	c.set(nil, "Cache-Control: max-age=600")
	fleet := sharedFleet(t, 32, 1, 3, origin(t, c.ServeHTTP), "")
	clients := clientsOf(t, fleet)
	cold := 0
	for i := range 30 {
		path := fmt.Sprintf("/cold/%d", i)
		if _, body := get(t, clients[i%3], "GET", "http://shop.test"+path); body != "0" {
			t.Fatal(body)
		}
		cold += c.of(path)
	}
	objects := 0
	for _, p := range fleet {
		n := int(p.n.cache.Stats().Objects)
		objects += n
		if n == 0 || n == 30 {
			t.Errorf("%s holds %d of 30", p.n.id.name, n)
		}
	}
	if cold != 30 || objects != 30 {
		t.Errorf("30 objects were asked for %d times and are held %d times: they are to be with their holders alone", cold, objects)
	}
	for range hotEnough {
		get(t, clients[0], "GET", "http://shop.test/cold/1")
		get(t, clients[1], "GET", "http://shop.test/cold/1")
		get(t, clients[2], "GET", "http://shop.test/cold/1")
	}
	hot := 0
	for _, p := range fleet {
		hot += int(p.n.cache.Stats().Objects)
	}
	if hot != 32 || c.of("/cold/1") != 1 {
		t.Errorf("%d copies after the hot object, origin asked %d times", hot-30, c.of("/cold/1"))
	}
	fleet[2].kill()
	for i := range 30 {
		for n := range 2 {
			if resp, body := get(t, clients[n], "GET", fmt.Sprintf("http://shop.test/cold/%d", i)); resp.StatusCode != 200 || body != "0" {
				t.Errorf("%d %q from node %d after a peer died: %v", resp.StatusCode, body, n, resp.Header)
			}
		}
	}
}

const hotEnough = 4

// TestPersonalStaysAtHome: what can't be shared takes the detour once at most, credentials never do, and an unsafe request
// makes the holder forget.
func TestPersonalStaysAtHome(t *testing.T) {
	c := newCounting()
	c.set(nil, "Cache-Control: private")
	fleet := sharedFleet(t, 33, 2, 2, origin(t, c.ServeHTTP), "cache: {shield: r1}")
	clients := clientsOf(t, fleet)
	var foreign *http.Client // its path's holder and shield are elsewhere
	path := ""
	for i := 0; foreign == nil; i++ {
		path = fmt.Sprintf("/me/%d", i)
		resp, _ := get(t, clients[3], "GET", "http://shop.test"+path)
		if s := strings.Join(resp.Header["Cache-Status"], ", "); strings.Contains(s, "detail=peer:r2-1") && strings.Contains(s, "detail=shield:r1-") {
			foreign = clients[3]
		}
	}
	resp, _ := get(t, foreign, "GET", "http://shop.test"+path)
	if s := resp.Header["Cache-Status"]; len(s) != 1 || strings.Contains(s[0], "detail") {
		t.Errorf("the second personal answer took the detour as well: %q", s)
	}
	if leak := slices.ContainsFunc(slices.Collect(keysOf(resp.Header)), func(n string) bool { return strings.HasPrefix(n, "Landfall-") }); leak {
		t.Errorf("the client sees what nodes say to each other: %v", resp.Header)
	}

	c.set(nil, "Cache-Control: public, max-age=600")
	page := strings.Replace(path, "me", "page", 1)
	for range 3 {
		get(t, foreign, "GET", "http://shop.test"+page)
	}
	c.version.Store(5)
	if _, body := get(t, clients[2], "GET", "http://shop.test"+page); body != "0" {
		t.Errorf("%q: not from the region's cache", body)
	}
	get(t, foreign, "POST", "http://shop.test"+page)
	if _, body := get(t, foreign, "GET", "http://shop.test"+page); body != "5" {
		t.Errorf("%q after a POST by the same client", body)
	}
	r, _ := http.NewRequest("GET", "http://shop.test/secret", nil)
	r.Header.Set("Authorization", "Bearer x")
	resp, err := foreign.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if s := strings.Join(resp.Header["Cache-Status"], ", "); strings.Contains(s, "detail") {
		t.Errorf("a request with credentials took the detour: %q", s)
	}
}

func keysOf(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range h {
			if !yield(name) {
				return
			}
		}
	}
}
