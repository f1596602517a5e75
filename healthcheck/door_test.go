package healthcheck

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"landfall/routing"
)

func doorKey32(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func TestPasses(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	us := NewPasses("shop", [][]byte{doorKey32(1), doorKey32(2)})
	for _, c := range []struct {
		name   string
		from   *Passes
		host   string
		at     time.Time
		change func(string) string
		want   bool
	}{
		{name: "good", from: us, host: "a.test", at: now, want: true},
		{name: "a minute old", from: us, host: "a.test", at: now.Add(-time.Minute), want: true},
		{name: "too old", from: us, host: "a.test", at: now.Add(-3 * time.Minute)},
		{name: "of the future", from: us, host: "a.test", at: now.Add(3 * time.Minute)},
		{name: "for another host", from: us, host: "b.test", at: now},
		{name: "by the second key, as while keys rotate", from: NewPasses("shop", [][]byte{doorKey32(2)}), host: "a.test", at: now, want: true},
		{name: "by another key", from: NewPasses("shop", [][]byte{doorKey32(3)}), host: "a.test", at: now},
		{name: "by another fleet of the same key", from: NewPasses("other", [][]byte{doorKey32(1)}), host: "a.test", at: now},
		{name: "by nobody", from: NewPasses("shop", nil), host: "a.test", at: now},
		{name: "cut short", from: us, host: "a.test", at: now, change: func(s string) string { return s[:len(s)-2] }},
		{name: "very long", from: us, host: "a.test", at: now, change: func(s string) string { return s + strings.Repeat("0", 1000) }},
		{name: "absent", from: us, host: "a.test", at: now, change: func(string) string { return "" }},
	} {
		pass, nonce := c.from.Ask(c.host, c.at)
		if c.change != nil {
			pass = c.change(pass)
		}
		r := &http.Request{Header: http.Header{DoorHeader: {pass}}}
		got, ok := us.Admit(r, "a.test", now)
		if ok != c.want || ok && got != nonce {
			t.Errorf("%s: admitted %t", c.name, ok)
		}
	}
	if _, ok := NewPasses("shop", nil).Admit(&http.Request{Header: http.Header{DoorHeader: {"1.1793534400.aa."}}}, "a.test", now); ok {
		t.Error("without keys everybody passes")
	}
}

// An answer is good for its nonce and its body alone.
func TestAnswersAreSealed(t *testing.T) {
	p := NewPasses("shop", [][]byte{doorKey32(1)})
	want := DoorAnswer{Service: "web", Region: "eu", Node: "eu-1", State: "down", Detail: strings.Repeat("ä", 200)}
	body, seal := p.Seal("n1", want)
	got, err := p.Open("n1", seal, body)
	if err != nil || got.Node != "eu-1" || got.State != "down" || len(got.Detail) > maxDetail {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := p.Open("n2", seal, body); err == nil {
		t.Error("an answer is good for another question")
	}
	if _, err := p.Open("n1", seal, bytes.Replace(body, []byte("down"), []byte("up"), 1)); err == nil {
		t.Error("an answer can be changed")
	}
	if _, err := NewPasses("shop", [][]byte{doorKey32(2)}).Open("n1", seal, body); err == nil {
		t.Error("an answer is good under another key")
	}
}

func FuzzDoorPass(f *testing.F) {
	now := time.Unix(1793534400, 0)
	p := NewPasses("shop", [][]byte{doorKey32(1)})
	pass, _ := p.Ask("a.test", now)
	f.Add(pass)
	f.Add("1.1793534400.00.00")
	f.Add("...")
	f.Fuzz(func(t *testing.T, s string) {
		nonce, ok := p.Admit(&http.Request{Header: http.Header{DoorHeader: {s}}}, "a.test", now)
		if ok && (!strings.Contains(s, "."+nonce+".") || len(s) > maxPass || !p.verify(s[strings.LastIndexByte(s, '.')+1:], "ask", "a.test", strings.Split(s, ".")[1], nonce)) {
			t.Errorf("admitted %q", s)
		}
	})
}

func FuzzDoorAnswer(f *testing.F) {
	p := NewPasses("shop", [][]byte{doorKey32(1)})
	body, seal := p.Seal("n", DoorAnswer{Service: "web"})
	f.Add(seal, body)
	f.Add("", []byte("{}"))
	f.Fuzz(func(t *testing.T, seal string, body []byte) {
		if a, err := p.Open("n", seal, body); err == nil {
			if _, again := p.Seal("n", a); !p.verify(seal, "answer", "n", string(body)) || again == "" {
				t.Errorf("opened %q", body)
			}
		}
	})
}

// frontDoor is a real server that answers as a node does.
func frontDoor(t *testing.T, p *Passes, a DoorAnswer, secure *tls.Config) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.Host)
		nonce, ok := p.Admit(r, host, time.Now())
		if !ok || r.URL.Path != DoorPath || !r.Close {
			http.NotFound(w, r)
			return
		}
		body, seal := p.Seal(nonce, a)
		w.Header().Set(DoorHeader, seal)
		_, _ = w.Write(body)
	}))
	if s.TLS = secure; secure != nil {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func doorCert(t *testing.T, host string, from, until time.Time) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// What a client would meet, on real sockets.
func TestAskDoor(t *testing.T) {
	p, now := NewPasses("shop", [][]byte{doorKey32(1)}), time.Now()
	answer := func(region, service, state string) DoorAnswer {
		return DoorAnswer{Service: service, Region: region, Node: "eu-1", State: state, Detail: "so it is"}
	}
	good := doorCert(t, "a.test", now.Add(-time.Hour), now.Add(time.Hour))
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	defer stranger.Close()
	for _, c := range []struct {
		name, want, detail string
		secure             bool
		at                 netip.AddrPort
	}{
		{name: "up", at: frontDoor(t, p, answer("eu", "web", "up"), nil), want: doorUp, detail: "eu-1 answered up"},
		{name: "by TLS", at: frontDoor(t, p, answer("eu", "web", "up"), good), secure: true, want: doorUp},
		{name: "its pool is down", at: frontDoor(t, p, answer("eu", "web", "down"), nil), want: doorDown, detail: "so it is"},
		{name: "nothing is known", at: frontDoor(t, p, answer("eu", "web", "unknown"), nil), want: doorUnknown},
		{name: "a word of a later version", at: frontDoor(t, p, answer("eu", "web", "splendid"), nil), want: doorUnknown},
		{name: "another region's node", at: frontDoor(t, p, answer("us", "web", "up"), nil), want: doorAnswer, detail: "in region us"},
		{name: "another service has the host", at: frontDoor(t, p, answer("eu", "shop", "up"), nil), want: doorAnswer, detail: "for service shop"},
		{name: "another fleet", at: frontDoor(t, NewPasses("other", [][]byte{doorKey32(1)}), answer("eu", "web", "up"), nil), want: doorAnswer, detail: "answered 404"},
		{name: "a stranger", at: netip.MustParseAddrPort(stranger.Listener.Addr().String()), want: doorAnswer, detail: "not of this fleet"},
		{name: "nobody listens", at: netip.MustParseAddrPort(closed.Addr().String()), want: doorConnect, detail: "refused"},
		{name: "nobody answers", at: netip.MustParseAddrPort(deaf.Addr().String()), want: doorTimeout, detail: "no answer within"},
		{name: "no TLS there", at: frontDoor(t, p, answer("eu", "web", "up"), nil), secure: true, want: doorConnect},
		{name: "a certificate for another name", at: frontDoor(t, p, answer("eu", "web", "up"), doorCert(t, "b.test", now.Add(-time.Hour), now.Add(time.Hour))),
			secure: true, want: doorConnect, detail: "b.test"},
		{name: "a certificate that is over", at: frontDoor(t, p, answer("eu", "web", "up"), doorCert(t, "a.test", now.Add(-2*time.Hour), now.Add(-time.Hour))),
			secure: true, want: doorConnect, detail: "its certificate ended on"},
	} {
		timeout := 10 * time.Second
		if c.want == doorTimeout {
			timeout = 50 * time.Millisecond
		}
		d := Door{Region: "eu", Service: "web", Host: "a.test", TLS: c.secure, Port: c.at.Port()}
		r := askDoor(t.Context(), newDoorTransport(time.Now), p, d, "eu-1", c.at.Addr(), timeout, time.Now)
		if r.result != c.want || !strings.Contains(r.detail, c.detail) {
			t.Errorf("%s: %s (%s), want %s (%s)", c.name, r.result, r.detail, c.want, c.detail)
		}
	}
}

// doorNet answers askings in virtual time, by address.
type doorNet struct {
	p *Passes

	mu    sync.Mutex
	state map[string]string // by address; absent: up, "dead": refused, "deaf": hangs
	asked map[string]int
	most  int
	now   int
}

func (n *doorNet) set(addr, state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state[addr] = state
}

func (n *doorNet) RoundTrip(r *http.Request) (*http.Response, error) {
	addr, _ := r.Context().Value(doorAddrKey{}).(string)
	n.mu.Lock()
	n.asked[addr]++
	n.now++
	n.most = max(n.most, n.now)
	state := n.state[addr]
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.now--
		n.mu.Unlock()
	}()
	switch state {
	case "dead":
		return nil, fmt.Errorf("refused")
	case "deaf":
		<-r.Context().Done()
		return nil, r.Context().Err()
	case "":
		state = "up"
	}
	host, _, _ := net.SplitHostPort(r.URL.Host)
	region, service, _ := strings.Cut(host, ".")
	nonce, ok := n.p.Admit(r, host, time.Now())
	if !ok {
		return nil, fmt.Errorf("no pass")
	}
	body, seal := n.p.Seal(nonce, DoorAnswer{Region: region, Service: service, State: state})
	return &http.Response{StatusCode: 200, Header: http.Header{DoorHeader: {seal}}, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

func doorAt(region, service string, addrs ...string) Door {
	d := Door{Region: region, Service: service, Host: region + "." + service, Port: 80}
	for i, a := range addrs {
		d.Nodes = append(d.Nodes, DoorNode{Name: fmt.Sprintf("%s-%d", region, i+1), Addrs: []netip.Addr{netip.MustParseAddr(a)}})
	}
	return d
}

var doorPolicy = DoorPolicy{Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3, Distrust: 0.5}

// watching runs a Doors in virtual time; random may be nil, as in DoorOptions.
func watching(t *testing.T, random func() float64, doors []Door, story func(*Doors, *doorNet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := NewPasses("shop", [][]byte{doorKey32(1)})
		n := &doorNet{p: p, state: map[string]string{}, asked: map[string]int{}}
		d := NewDoors(DoorOptions{Passes: p, transport: n, Rand: random})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.Run(ctx) }()
		d.Update(doorPolicy, doors)
		story(d, n)
		cancel()
		<-ended
	})
}

func seenDoors(d *Doors) string {
	sights, suspect := d.Sights()
	var out []string
	for _, s := range sights {
		out = append(out, s.Region+"/"+s.Service+"="+s.State.String())
	}
	if suspect != "" {
		out = append(out, "suspect")
	}
	return strings.Join(out, " ")
}

func TestDoorsStory(t *testing.T) {
	doors := []Door{doorAt("eu", "web", "10.0.0.1", "10.0.0.2"), doorAt("us", "web", "10.0.1.1"), doorAt("us", "shop", "10.0.1.1"), doorAt("ap", "web", "10.0.2.1")}
	steady := func() float64 { return 0.25 } // asks every door first after 0.5 s and then each 1.9 s
	watching(t, steady, doors, func(d *Doors, n *doorNet) {
		want := func(when, want string) {
			t.Helper()
			if got := seenDoors(d); got != want {
				t.Errorf("%s:\n got %s\nwant %s", when, got, want)
			}
		}
		want("at the start", "ap/web=unknown eu/web=unknown us/shop=unknown us/web=unknown")
		pass(5 * time.Second)
		want("all answer", "ap/web=up eu/web=up us/shop=up us/web=up")
		n.set("10.0.0.1:80", "dead")
		pass(20 * time.Second)
		want("one node of two is dead: the region answers on", "ap/web=up eu/web=up us/shop=up us/web=up")
		n.set("10.0.0.2:80", "deaf")
		pass(20 * time.Second)
		want("both are", "ap/web=up eu/web=down us/shop=up us/web=up")
		n.set("10.0.1.1:80", "down")
		pass(10 * time.Second)
		want("another tells that its pools are down: a finding, no sign of a broken line", "ap/web=up eu/web=down us/shop=down us/web=down")
		n.set("10.0.1.1:80", "dead")
		pass(10 * time.Second)
		want("two of three are silent: the observer suspects itself", "ap/web=up eu/web=unknown us/shop=unknown us/web=unknown suspect")
		n.set("10.0.1.1:80", "unknown")
		pass(10 * time.Second)
		want("one is back, and knows nothing of its pool", "ap/web=up eu/web=down us/shop=unknown us/web=unknown")
		n.set("10.0.0.1:80", "")
		n.set("10.0.0.2:80", "")
		n.set("10.0.1.1:80", "")
		pass(2100 * time.Millisecond)
		want("one good look is not enough", "ap/web=up eu/web=down us/shop=up us/web=up")
		pass(4 * time.Second)
		want("two are", "ap/web=up eu/web=up us/shop=up us/web=up")
		d.Update(doorPolicy, doors[:1])
		want("the others are not looked at any more", "eu/web=up")
		p := doorPolicy
		p.Interval = 0
		d.Update(p, doors)
		want("looks are off", "")
	})
}

// The work is the same whether doors answer, refuse or hang, and bounded however many there are.
func TestDoorsAreConstantWork(t *testing.T) {
	var many []Door
	for i := range 500 {
		many = append(many, doorAt("r"+fmt.Sprint(i/10), "s"+fmt.Sprint(i%10), "10.0.0.1"))
	}
	many = append(many, doorAt("eu", "web", "10.0.1.1"), doorAt("us", "web", "10.0.1.2"))
	for _, doors := range [][]Door{many[500:], many} {
		watching(t, nil, doors, func(d *Doors, n *doorNet) {
			pass(20 * time.Second)
			sum := func() (sum int) {
				n.mu.Lock()
				defer n.mu.Unlock()
				for _, c := range n.asked {
					sum += c
				}
				return sum
			}
			before := sum()
			pass(time.Minute)
			good := sum() - before
			n.set("10.0.0.1:80", "deaf")
			n.set("10.0.1.1:80", "dead")
			before = sum()
			pass(time.Minute)
			bad := sum() - before
			if most := askRate * 60; good > most*11/10 || bad > good*11/10 || good < min(len(doors)*25, most*8/10) || n.most > maxAsking {
				t.Errorf("%d doors: %d askings a minute in good times, %d in bad, %d at once", len(doors), good, bad, n.most)
			}
		})
	}
}

func TestDoorVerdict(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 3, 0, time.UTC)
	for _, c := range []struct {
		words  string // "region/observer state", by commas
		voters int
		quorum string
		want   routing.State
		text   string
	}{
		{"", 2, "majority", routing.Unknown, ""},
		{"us/u1 up,ap/a1 up", 2, "majority", routing.Up, "front door answers ap (a1), us (u1)"},
		{"us/u1 down,ap/a1 up", 2, "majority", routing.Up, "front door fails us (u1 since 12:00:03Z), answers ap (a1); 2 of 2 regions must agree (refused)"},
		{"us/u1 down,ap/a1 down", 2, "majority", routing.Down, "front door fails ap (a1 since 12:00:03Z), us (u1 since 12:00:03Z); 2 of 2 regions must agree (refused)"},
		{"us/u1 down,us/u2 up,ap/a1 down", 2, "majority", routing.Up, "2 of 2"},
		{"us/u1 down", 1, "majority", routing.Down, "1 of 1"},
		{"us/u1 down", 5, "majority", routing.Unknown, "3 of 5"},
		{"us/u1 down,us/u2 down,us/u3 down", 5, "majority", routing.Unknown, "3 of 5"},
		{"us/u1 down,ap/a1 up,sa/s1 up", 3, "any", routing.Down, "1 of 3"},
		{"us/u1 down,ap/a1 down", 3, "all", routing.Unknown, "3 of 3"},
		{"us/u1 unknown,ap/a1 up", 2, "majority", routing.Up, "answers ap"},
	} {
		var s []Sighting
		for w := range strings.SplitSeq(c.words, ",") {
			if w == "" {
				continue
			}
			who, state, _ := strings.Cut(w, " ")
			region, observer, _ := strings.Cut(who, "/")
			states := []routing.State{routing.Up, routing.Unknown, routing.Down}
			i := slices.IndexFunc(states, func(s routing.State) bool { return s.String() == state })
			s = append(s, Sighting{Observer: observer, Region: region, State: states[i], Since: at, Detail: "refused"})
		}
		if state, text := DoorVerdict(s, c.voters, c.quorum); state != c.want || !strings.Contains(text, c.text) || (text == "") != (c.text == "") {
			t.Errorf("%s of %d, %s: %s %q, want %s %q", c.words, c.voters, c.quorum, state, text, c.want, c.text)
		}
	}
}

// The work is spread evenly over a region's nodes, and one that comes moves only what it takes.
func TestObservers(t *testing.T) {
	nodes := []string{"a", "b", "c", "d", "e"}
	load, moved := map[string]int{}, 0
	for r := range 30 {
		for s := range 20 {
			region, service := fmt.Sprint("r", r), fmt.Sprint("s", s)
			few := Observers(region, service, nodes[:4], 2)
			all := Observers(region, service, nodes, 2)
			for _, n := range all {
				load[n]++
			}
			for _, n := range few {
				if !slices.Contains(all, n) {
					moved++
				}
			}
			if len(all) != 2 || all[0] == all[1] {
				t.Fatalf("%v", all)
			}
		}
	}
	for n, l := range load {
		if l < 190 || l > 290 {
			t.Errorf("%s has %d of 1200", n, l)
		}
	}
	if moved > 290 {
		t.Errorf("%d of 1200 moved", moved)
	}
	if got := Observers("r", "s", nodes[:1], 2); len(got) != 1 {
		t.Errorf("%v", got)
	}
}
