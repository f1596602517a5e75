package mesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestStrangersAreKeptOut(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	wrongKey := f.start("k", func(o *Options) { o.Keys = [][]byte{bytes.Repeat([]byte("x"), 32)} }, a)
	wrongFleet := f.start("l", func(o *Options) { o.Fleet = "other" }, a)
	rotating := f.start("b", func(o *Options) { o.Keys = [][]byte{f.ring, bytes.Repeat([]byte("x"), 32)} }, a)
	conn, err := net.Dial("udp", a.gossip.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for size := 1; size < 1200; size += 100 {
		junk := make([]byte, size)
		_, _ = rand.Read(junk)
		_, _ = conn.Write(junk)
	}
	stream, err := net.Dial("tcp", a.gossip.String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = stream.Write(bytes.Repeat([]byte{0xf4, 0xff}, 1000))
	_ = stream.Close()

	whole(t, a, rotating)
	for _, n := range []*node{wrongKey, wrongFleet} {
		<-n.Ready()
		eventually(t, n.name+" says that nobody takes it in", func() bool { return n.saw("mesh.alone " + n.name) })
		if len(n.Members()) != 1 || a.sees(n.name).Name != "" {
			t.Errorf("%s got in", n.name)
		}
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	notDir := t.TempDir() + "/file"
	mustWrite(t, notDir, "")
	inUse := t.TempDir()
	holder := f.start("h", func(o *Options) { o.DataDir = inUse })
	<-holder.Ready()
	for name, c := range map[string]struct {
		edit func(*Options)
		want string
	}{
		"port in use":     {func(o *Options) { o.Bind = a.gossip }, "another process has it"},
		"foreign address": {func(o *Options) { o.Bind = netip.MustParseAddrPort("192.0.2.77:0") }, "choose an address of this machine"},
		"unwritable":      {func(o *Options) { o.DataDir = notDir }, "choose a folder that this user may write"},
		"no folder":       {func(o *Options) { o.DataDir = notDir + "/x" }, "data folder"},
		"locked":          {func(o *Options) { o.DataDir = inUse }, "in use by another process"},
		"no key":          {func(o *Options) { o.Keys = nil }, "mesh.key"},
		"short key":       {func(o *Options) { o.Keys = [][]byte{[]byte("short")} }, "16, 24 or 32 bytes"},
		"bad name":        {func(o *Options) { o.Node = "a b" }, "node name"},
		"bad region":      {func(o *Options) { o.Region = "" }, "region"},
		"no boot":         {func(o *Options) { o.Boot = "" }, "boot id"},
		"no peer":         {func(o *Options) { o.Peer = netip.AddrPort{} }, "listen.peer"},
		"many addresses":  {func(o *Options) { o.Addrs = make([]netip.Addr, MaxAddrs+1) }, "too many"},
		"fast beats":      {func(o *Options) { o.Heartbeat = time.Millisecond }, "not within"},
	} {
		if _, err := f.prepare("n", c.edit); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the error should say %q: %v", name, c.want, err)
		}
	}
	n, err := f.prepare("n", nil) // New without Run leaks nothing
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestQuickRestartElsewhere(t *testing.T) {
	f, a, b, c := three(t)
	c.kill()
	c2 := f.start("c", nil, a) // before anybody can have noticed, at other ports
	for _, n := range []*node{a, b} {
		eventually(t, n.name+" reaches the new c", func() bool { m := n.sees("c"); return m.Reachable && m.Boot == c2.opt.Boot })
		if n.saw("node.duplicate c") {
			t.Errorf("%s takes a restart for a doubled name", n.name)
		}
	}
	whole(t, a, b, c2)
}

func TestDoubledNameIsReported(t *testing.T) {
	f, a, _, c := three(t)
	double := f.start("c", nil, a)
	eventually(t, "some node says so", func() bool { return double.saw("mesh.refused a") || double.saw("mesh.refused b") })
	if m := a.sees("c"); m.Boot != c.opt.Boot || !m.Reachable {
		t.Errorf("the second bearer of a name takes the first one's place: %+v", m)
	}
}

func TestPeerChannelRefuses(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	b := f.start("b", nil, a)
	whole(t, a, b)
	call := func(path string, body []byte) (int, string) {
		t.Helper()
		ctx := context.WithValue(t.Context(), peerNameKey{}, "a")
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://a"+PeerSuffix+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return resp.StatusCode, string(text)
	}
	hello := func(edit func(*greeting)) []byte {
		i := someInfo()
		i.Boot = "other"
		g := greeting{Speaks: protoVersion, Oldest: protoOldest, Fleet: "test", Node: "b", Meta: appendMeta(nil, i)}
		edit(&g)
		raw := encode(g)
		return append(binary.AppendUvarint(nil, uint64(len(raw))), raw...)
	}
	for name, c := range map[string]struct {
		path string
		body []byte
		want int
		text string
	}{
		"another's name":   {pathLink, hello(func(g *greeting) { g.Node = "z" }), http.StatusForbidden, "the node says that it is z"},
		"another fleet":    {pathLink, hello(func(g *greeting) { g.Fleet = "other" }), http.StatusForbidden, `belongs to fleet "test", b to "other"`},
		"another version":  {pathLink, hello(func(g *greeting) { g.Speaks, g.Oldest = 9, 8 }), http.StatusUpgradeRequired, "b 8 to 9"},
		"another key":      {pathLink, hello(func(g *greeting) { g.Keys = []string{"00000000"} }), http.StatusForbidden, "share no mesh.key"},
		"a name in use":    {pathLink, hello(func(*greeting) {}), http.StatusConflict, "another process of the name b"},
		"its own name":     {pathLink, hello(func(g *greeting) { g.Node = "a" }), http.StatusForbidden, "does not bear"},
		"not a greeting":   {pathLink, []byte("\x01{"), http.StatusBadRequest, "not understood"},
		"nothing":          {pathLink, nil, http.StatusBadRequest, "no greeting came"},
		"a huge greeting":  {pathLink, binary.AppendUvarint(nil, 1<<40), http.StatusBadRequest, "no greeting came"},
		"the former paths": {"/mesh/v1/beat", nil, http.StatusNotFound, ""},
	} {
		eventually(t, "the beats of b are heard", func() bool {
			a.Mesh.mu.Lock()
			defer a.Mesh.mu.Unlock()
			l := a.core.members["b"].link
			return l != nil && l.echoed > 4
		})
		if code, text := call(c.path, c.body); code != c.want || !strings.Contains(text, c.text) {
			t.Errorf("%s: %d %s, not %d", name, code, text, c.want)
		}
	}
	far := register("far", `1`, time.Now().Add(2*MaxClockLead).UnixMilli())
	b.put(&push{register: far})
	b.put(&push{register: register("near", `1`, 5)})
	eventually(t, "a register from the future is reported", func() bool { return a.saw("registers.future far") })
	eventually(t, "the other is taken", func() bool { return len(a.Registers("")) == 1 })
	if rs := a.Registers(""); rs[0].Key != "near" {
		t.Errorf("a holds %+v", rs)
	}
	b.Publish(json.RawMessage(`"` + strings.Repeat("x", MaxReport) + `"`))
	b.Publish(json.RawMessage(`{`))
	b.SetState(Dead)
	if m := b.sees("b"); m.Report != nil || m.State != Joining {
		t.Errorf("what can't be told is told: %+v", m)
	}
}

// put sends a message on all links of a node.
func (n *node) put(m message) {
	n.Mesh.mu.Lock()
	defer n.Mesh.mu.Unlock()
	for _, p := range n.pipes {
		p.put(m)
	}
}

// merge has a node take registers as if a peer had sent them.
func (n *node) merge(rs []Register) {
	n.step(func(c *core, now instant) *effects {
		c.begin()
		c.merge(now, "test", rs)
		return &c.out
	})
}

func (n *node) held() (count int, digest uint64) {
	n.Mesh.mu.Lock()
	defer n.Mesh.mu.Unlock()
	return len(n.core.table.entries), n.core.table.digest()
}

func TestManyRegistersCrossInPages(t *testing.T) {
	f := newFleet(t)
	a, err := f.prepare("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	value := json.RawMessage(`"` + strings.Repeat("v", 4000) + `"`)
	var rs []Register
	for i := range 500 { // 2 MB: several pages
		rs = append(rs, register(fmt.Sprintf("k/%d", i), string(value), time.Now().UnixMilli()))
	}
	a.merge(rs)
	a.run()
	b, err := f.prepare("b", nil, a)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rs {
		rs[i].Key = "b" + rs[i].Key
	}
	b.merge(rs)
	b.run()
	<-b.Ready()
	for _, n := range []*node{a, b} {
		eventually(t, n.name+" has all", func() bool { return len(n.Registers("")) == 1000 })
	}
	_, da := a.held()
	if _, db := b.held(); da != db {
		t.Error("equal registers have different digests")
	}
}

func TestFullTable(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	rs := make([]Register, MaxRegisters+1)
	for i := range rs {
		rs[i] = register(fmt.Sprintf("k/%05d", i), `1`, time.Now().UnixMilli())
	}
	a.merge(rs)
	if n, _ := a.held(); n != MaxRegisters {
		t.Errorf("%d registers are held", n)
	}
	if _, err := a.Set(t.Context(), "one-more", json.RawMessage(`1`)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("one more is set: %v", err)
	}
	if _, err := a.Set(t.Context(), "k/00000", json.RawMessage(`2`)); err != nil {
		t.Errorf("a held key can't be changed: %v", err)
	}
	eventually(t, "it is reported", func() bool { return a.saw("registers.full k/10000") })
}

func TestRegistersExpire(t *testing.T) {
	f := newFleet(t)
	var shift atomic.Int64
	dir := t.TempDir()
	later := func(o *Options) {
		o.DataDir, o.Now = dir, func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	}
	a := f.start("a", later)
	<-a.Ready()
	if _, err := a.SetFor(t.Context(), "short", json.RawMessage(`1`), 90*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Set(t.Context(), "gone", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.SetFor(t.Context(), "never", nil, -time.Second); err == nil {
		t.Error("a negative TTL is accepted")
	}
	shift.Store(int64(91 * time.Second))
	if rs := a.Registers(""); len(rs) != 0 {
		t.Errorf("expired, yet listed: %+v", rs)
	}
	eventually(t, "it is dropped", func() bool { n, _ := a.held(); return n == 1 })
	shift.Store(int64(25 * time.Hour))
	eventually(t, "the tombstone is dropped", func() bool { n, _ := a.held(); return n == 0 })
	a.kill()
	b := f.start("a", later)
	<-b.Ready()
	if got := b.told("short"); len(got) != 0 {
		t.Errorf("an expired register came back from disk: %q", got)
	}
}

func TestMetricsMove(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	b := f.start("b", nil, a)
	whole(t, a, b)
	for _, n := range []*node{a, b} {
		if _, err := n.Set(t.Context(), "k", json.RawMessage(`1`)); err != nil {
			t.Fatal(err)
		}
	}
	a.Publish(nil) // counts as refused
	want := map[string]bool{
		`landfall_mesh_members{state="joining"} = 2`: true, `landfall_mesh_registers{} = 1`: true,
		`landfall_mesh_refused_total{reason="report"} = 1`: true,
	}
	for _, kind := range []string{"packet", "stream", "beat", "soft", "push", "taken"} {
		for _, direction := range []string{"in", "out"} {
			want[fmt.Sprintf(`landfall_mesh_messages_total{direction=%q,kind=%q}`, direction, kind)] = true
		}
	}
	want[`landfall_region_rtt_seconds{from="r-a",to="r-b"}`] = true
	for name := range want {
		key, value, exact := strings.Cut(name, " = ")
		eventually(t, name+" has moved", func() bool {
			v, ok := gather(t, a)[key]
			return ok && v > 0 && (!exact || fmt.Sprint(v) == value)
		})
	}
}

// gather is the metrics of a node by name and labels.
func gather(t *testing.T, n *node) map[string]float64 {
	t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, fam := range families {
		for _, m := range fam.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			out[fam.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func BenchmarkMembers(b *testing.B) {
	m := &Mesh{opt: Options{Node: "self", Now: time.Now}, base: time.Now()}
	m.core = newCore("self", someInfo(), time.Second, time.Second, m.instant(), func() float64 { return 0 })
	for i := range 30 {
		m.core.hint(m.instant(), fmt.Sprintf("n%d", i), someInfo(), netip.AddrPort{}, true)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Members()
	}
}

func TestKeysRotateWithoutAGap(t *testing.T) {
	f, a, b, c := three(t)
	fresh := bytes.Repeat([]byte("n"), 32)
	for _, step := range [][][]byte{{f.ring, fresh}, {fresh, f.ring}, {fresh}} {
		for _, n := range []*node{a, b, c} {
			if err := n.SetKeys(step); err != nil {
				t.Fatal(err)
			}
			whole(t, a, b, c)
		}
	}
	d := f.start("d", func(o *Options) { o.Keys = [][]byte{fresh} }, a)
	whole(t, a, b, c, d)
	for what, keys := range map[string][][]byte{"none": {}, "another": {f.ring}, "short": {fresh, []byte("x")}} {
		if err := a.SetKeys(keys); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	if a.saw("node.unreachable b") || a.saw("node.dead b") {
		t.Error("the rotation was felt")
	}
}
