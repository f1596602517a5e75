package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"landfall/gateway/admin"
	"landfall/routing/mesh"
)

// A log of purges is bounded, and tells of those that come later, too.
func TestPurgeLog(t *testing.T) {
	l := newPurgeLog()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if got := l.wait(done, []string{"a/0"}); got[0] != nil {
		t.Errorf("%v", got)
	}
	go l.put("a/0", &purgeCount{objects: 2})
	if got := l.wait(t.Context(), []string{"a/0"}); got[0].objects != 2 {
		t.Errorf("%v", got)
	}
	for i := range purgeLogSize {
		l.put(fmt.Sprintf("b/%d", i), &purgeCount{})
	}
	if len(l.waits) != 0 {
		t.Errorf("%d are waited for by nobody", len(l.waits))
	}
	if len(l.counts) != purgeLogSize || len(l.order) != purgeLogSize || l.counts["a/0"] != nil {
		t.Errorf("the log is not bounded: %d", len(l.counts))
	}
}

// TestPurgeTrack: whatever order a writer's registers come in, and however often, each is applied once; and when some
// never come, that is found out.
func TestPurgeTrack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const slots = 8
		count := rapid.IntRange(1, 30).Draw(t, "count")
		lost := 0
		track := newPurgeTrack(func(string) { lost++ })
		now := time.Unix(1000, 0)
		applied := map[uint64]int{}
		var come []uint64
		for seq := uint64(1); seq <= uint64(count); seq++ {
			for range rapid.IntRange(0, 2).Draw(t, "times") {
				come = append(come, seq)
			}
		}
		come = append(come, uint64(count))
		come = rapid.Permutation(come).Draw(t, "order")
		for _, seq := range come {
			first := uint64(1)
			if seq > slots {
				first = seq - slots + 1
			}
			track.take("w", seq, first, now, func() { applied[seq]++ })
			now = now.Add(time.Millisecond)
		}
		track.tick(now.Add(purgePatience))
		for seq, n := range applied {
			if n != 1 {
				t.Fatalf("%d was applied %d times", seq, n)
			}
		}
		if len(applied) < count && lost == 0 {
			t.Fatalf("%d of %d were applied, and nothing was found missing", len(applied), count)
		}
		if w := track.writers["w"]; w.low != uint64(count) || len(w.above) != 0 || !w.hole.IsZero() {
			t.Fatalf("%+v after all", w)
		}
	})
}

func TestPurgeTrackIsBounded(t *testing.T) {
	lost := 0
	track := newPurgeTrack(func(string) { lost++ })
	now := time.Unix(1000, 0)
	for i := range maxPurgeWriters + 10 {
		track.take(fmt.Sprint(i), 1, 1, now.Add(time.Duration(i)), func() {})
	}
	for seq := range uint64(2 * maxPurgeAhead) {
		track.take("w", seq+10, 1, now, func() {})
	}
	if len(track.writers) > maxPurgeWriters || len(track.writers["w"].above) > maxPurgeAhead || lost == 0 {
		t.Errorf("%d writers, %d ahead, lost %d", len(track.writers), len(track.writers["w"].above), lost)
	}
}

func TestIsolation(t *testing.T) {
	now := time.Unix(1000, 0)
	members := func(reachable ...bool) (out []mesh.Member) {
		out = []mesh.Member{{Self: true, State: mesh.Serving}}
		for _, r := range reachable {
			m := mesh.Member{Reachable: r, State: mesh.Serving}
			if !r {
				m.State = mesh.Dead
			}
			out = append(out, m)
		}
		return out
	}
	for _, c := range []struct {
		name    string
		members []mesh.Member
		want    bool
	}{
		{"alone from the begin", members(), false},
		{"all there", members(true, true), false},
		{"one of three gone", members(true, false), false},
		{"two of three gone", members(false, false), true},
		{"the other one of two gone", members(false), true},
		{"half of four gone", members(true, false, false), false},
		{"three of five gone", members(true, false, false, false), true},
		{"the others have left", append(members(), mesh.Member{State: mesh.Leaving}), false},
	} {
		var i isolation
		for _, d := range []time.Duration{0, 29 * time.Second, 30 * time.Second} {
			got, _ := i.step(c.members, 30*time.Second, now.Add(d))
			if got != (c.want && d == 30*time.Second) {
				t.Errorf("%s, after %s: %v", c.name, d, got)
			}
		}
		at := now.Add(time.Minute)
		first, _ := i.step(members(true, true), 30*time.Second, at)
		last, away := i.step(members(true, true), 30*time.Second, at.Add(settleTime))
		if first != c.want || last || (away > 0) != c.want {
			t.Errorf("%s, back: %v, then %v after %s", c.name, first, last, away)
		}
		if off, _ := i.step(c.members, 0, at.Add(24*time.Hour)); off {
			t.Errorf("%s: cut off though isolation is off", c.name)
		}
	}
}

// ringFleet keeps registers in memory and tells a callback, as a mesh would.
type ringFleet struct {
	mu        sync.Mutex
	registers map[string]json.RawMessage
	sets      atomic.Int64
	fails     error
	tell      func(purgeBatch)
}

func (f *ringFleet) Members() []mesh.Member           { return []mesh.Member{{Name: "n", Self: true}} }
func (f *ringFleet) Registers(string) []mesh.Register { return nil }
func (f *ringFleet) Spread(ctx context.Context, key string, value json.RawMessage, ttl time.Duration, onDisk func()) (mesh.Ack, error) {
	ack, err := f.Set(ctx, key, value, ttl)
	if err == nil {
		onDisk()
	}
	return ack, err
}

func (f *ringFleet) Set(_ context.Context, key string, value json.RawMessage, _ time.Duration) (mesh.Ack, error) {
	f.sets.Add(1)
	if f.fails != nil {
		return mesh.Ack{}, f.fails
	}
	var b purgeBatch
	if err := json.Unmarshal(value, &b); err != nil || len(value) > mesh.MaxValue {
		return mesh.Ack{}, fmt.Errorf("%d bytes: %w", len(value), err)
	}
	f.mu.Lock()
	f.registers[key] = value
	f.mu.Unlock()
	f.tell(b)
	return mesh.Ack{}, nil
}

// Purges that come together share registers; the registers are a ring; and each purge is told to the one who asked.
func TestPurgeWriter(t *testing.T) {
	log, track := newPurgeLog(), newPurgeTrack(func(why string) { t.Error(why) })
	f := &ringFleet{registers: map[string]json.RawMessage{}}
	f.tell = func(b purgeBatch) {
		track.take("w", b.Seq, b.First, time.Unix(1000, 0), func() {
			for _, p := range b.Records {
				log.put(p.key(), &purgeCount{objects: 1})
			}
		})
	}
	w := newPurgeWriter("n/boot", f, func(ctx context.Context, _ mesh.Member, keys []string) ([]purgeTold, error) {
		var out []purgeTold
		for _, c := range log.wait(ctx, keys) {
			out = append(out, purgeTold{Applied: c != nil, Removed: 1})
		}
		return out, nil
	})
	defer w.close()
	const count = 5000
	var asking sync.WaitGroup
	for i := range 50 {
		asking.Go(func() {
			for k := range count / 50 {
				j := newPurgeJob([]purgeRecord{{ID: fmt.Sprintf("%d-%d", i, k), Parts: 1, Service: "s", Keys: []string{"k"}}}, f.Members())
				w.submit(j)
				if err := j.wait(t.Context()); err != nil || j.nodes["n"].removed != 1 {
					t.Errorf("%v %+v", err, j.nodes["n"])
				}
			}
		})
	}
	asking.Wait()
	if sets := f.sets.Load(); len(f.registers) > maxPurgeSlots || sets > count {
		t.Errorf("%d registers by %d writes", len(f.registers), sets)
	}
	f.fails = errors.New("disk full")
	j := newPurgeJob([]purgeRecord{{ID: "x", Parts: 1}}, f.Members())
	w.submit(j)
	if err := j.wait(t.Context()); err == nil {
		t.Error("a purge that was not written counts as done")
	}
}

func TestPurgeCutter(t *testing.T) {
	c := purgeCutter{base: purgeRecord{ID: "x", Service: "s", By: "me", Issued: time.Unix(1000, 0)}}
	want := map[string]bool{}
	for i := range 500 {
		u := fmt.Sprintf("https://shop.test/%d?a=b&c=%s", i, strings.Repeat(`"`, i%900))
		want[u] = true
		c.add(u, func(r *purgeRecord) *[]string { return &r.URLs })
	}
	for i, r := range c.records {
		r.Part, r.Parts = i, len(c.records)
		if n := len(encodePurge(purgeBatch{1 << 60, 1 << 60, []purgeRecord{r}})); n > mesh.MaxValue {
			t.Errorf("part %d has %d bytes", i, n)
		}
		for _, u := range r.URLs {
			delete(want, u)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d were lost, like %v", len(want), slices.Collect(maps.Keys(want))[:1])
	}
}

// threeNodes starts a fleet of three nodes in this process, each in a region of its own.
func threeNodes(t testing.TB, originURL string, latency map[string]time.Duration) []*process {
	hosts := []string{"127.0.8.1", "127.0.8.2", "127.0.8.3"}
	port := ports(t, 4, hosts...)
	s := newSite(t, "node-1", "node-2", "node-3")
	file := write(t, s.file("fleet.yaml"), fmt.Sprintf(`
fleet: test
regions: {r1: {}, r2: {}, r3: {}}
listen: {http: [":%[1]s"], mesh: ":%[2]s", peer: ":%[3]s"}
mesh: {key: "%[4]s", join: ["127.0.8.1:%[2]s"], tls: {ca: ca.pem, cert: "${NODE}.pem", key: "${NODE}.key"}}
services: {web: {hosts: [shop.test], purgers: [127.0.0.0/8], pools: {any: {origins: ["%[5]s"]}}}}
`, port[0], port[1], port[2], s.key, originURL))
	var fleet []*process
	for i, host := range hosts {
		name := fmt.Sprintf("node-%d", i+1)
		fleet = append(fleet, start(t, Options{
			ConfigFile: file, Name: name, Region: fmt.Sprintf("r%d", i+1), Bind: host, Admin: host + ":" + port[3],
			DataDir: filepath.Join(t.TempDir(), name), Latency: latency,
		}))
	}
	for _, p := range fleet {
		eventually(t, "all nodes see each other", func() bool {
			reached := 0
			for _, m := range p.n.fleet.Members() {
				if m.Self || m.Reachable && m.State == mesh.Serving {
					reached++
				}
			}
			return reached == len(fleet)
		})
	}
	return fleet
}

// TestPurgeKindsEverywhere: after a purge that waited for all returned, no node serves what was there before, and the answer
// tells of each node how much it held.
func TestPurgeKindsEverywhere(t *testing.T) {
	var version atomic.Int64
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Surrogate-Key", "all "+r.URL.Path[1:])
		fmt.Fprint(w, version.Load())
	})
	fleet := threeNodes(t, u, nil)
	var clients []*http.Client
	for _, p := range fleet {
		clients = append(clients, browser(t, p.listen["http"], nil))
	}
	for i, req := range []admin.PurgeRequest{
		{URLs: []string{"http://shop.test/a"}}, {Keys: []string{"a"}}, {Prefixes: []string{"http://shop.test/a"}},
		{Hosts: []string{"Shop.test"}}, {All: true}, {Keys: []string{"all"}},
	} {
		for k, c := range clients {
			get(t, c, "GET", "http://shop.test/a")
			if resp, _ := get(t, c, "GET", "http://shop.test/a"); !strings.Contains(resp.Header.Get("Cache-Status"), "hit") {
				t.Fatalf("purge %d, node %d: %v", i, k, resp.Header)
			}
		}
		now := version.Add(1)
		req.Service = "web"
		from := fleet[i%len(fleet)].n
		res, err := from.purge(t.Context(), req, admin.WaitAll, "test")
		if err != nil || len(res.Applied) != len(fleet) || len(res.Missing) != 0 {
			t.Fatalf("purge %d: %+v %v", i, res, err)
		}
		if req.Prefixes == nil && res.Removed != len(fleet) {
			t.Errorf("purge %d: %+v", i, res)
		}
		for k, c := range clients {
			if _, body := get(t, c, "GET", "http://shop.test/a"); body != fmt.Sprint(now) {
				t.Errorf("purge %d, node %d: %s after %d", i, k, body, now)
			}
		}
		eventually(t, "another node knows the purge, counted", func() bool {
			known, ok := backend{fleet[(i+1)%len(fleet)].n}.PurgeByID(res.ID)
			return ok && !known.Counting && known.Removed >= 1 && known.Service == "web" && len(known.Applied) == len(fleet)
		})
	}
	none, err := fleet[0].n.purge(t.Context(), admin.PurgeRequest{Service: "web", Keys: []string{"no such"}}, admin.WaitAll, "test")
	if err != nil || none.Removed != 0 || len(none.Applied) != len(fleet) {
		t.Errorf("nothing to purge: %+v %v", none, err)
	}
	for wait, nodes := range map[string]int{admin.WaitNode: 1, admin.WaitRegion: 1} {
		if res, err := fleet[1].n.purge(t.Context(), admin.PurgeRequest{Service: "web", All: true}, wait, "test"); err != nil || len(res.Applied) != nodes || res.Applied[0].Node != "node-2" {
			t.Errorf("wait=%s: %+v %v", wait, res, err)
		}
	}
	fleet[2].kill()
	var res admin.PurgeResult
	eventually(t, "a purge names the node that is gone, or counts it as dead", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		res, err = fleet[0].n.purge(ctx, admin.PurgeRequest{Service: "web", All: true}, admin.WaitAll, "test")
		return err == nil && len(res.Applied) == 2
	})
}
