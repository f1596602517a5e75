package push

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"landfall/configs"
)

const (
	testZone   = "example.com."
	testServed = "$ORIGIN example.com.\n@ 300 SOA ns1 hostmaster 1 7200 900 1209600 300\n@ 300 NS ns1\nns1 300 A 192.0.2.53\nwww 300 A 203.0.113.9\nwww 300 TXT \"kept\"\n"
)

var tsigSecret = base64.StdEncoding.EncodeToString([]byte("a key for tests, of 32 bytes...."))

// TestRFC2136 drives the pusher against servers: one in this process, and Knot where it is installed.
func TestRFC2136(t *testing.T) {
	t.Run("in process", func(t *testing.T) { pushTo(t, updateServer(t)) })
	t.Run("knot", func(t *testing.T) { pushTo(t, knot(t)) })
}

func pushTo(t *testing.T, server string) {
	r := newRig()
	c := configs.RFC2136{Server: server, KeyName: "landfall", Algorithm: "hmac-sha256", Secret: tsigSecret}
	r.o.Provider = RFC2136(c)
	r.wanted = []Name{host("www.example.com", "192.0.2.1", "2001:db8::1"), host("*.shop.example.com", "192.0.2.1"), host("example.com", "192.0.2.2")}
	r.run(settle + 2*look)
	if s := r.Status(); s.Error != "" || s.Pending != 0 {
		t.Fatalf("status %+v", s)
	}
	r.wanted[0] = host("www.example.com", "2001:db8::2", "2001:db8::3")
	r.wanted[1] = host("*.shop.example.com")
	r.run(r.o.Interval + 2*look)
	for query, want := range map[string][]string{
		"A www.example.com.": nil, "AAAA www.example.com.": {"2001:db8::2", "2001:db8::3"}, "TXT www.example.com.": {`"kept"`},
		"A any.shop.example.com.": {"192.0.2.1"}, "A example.com.": {"192.0.2.2"}, "NS example.com.": {"ns1.example.com."},
	} {
		if got := lookup(t, server, query); !slices.Equal(got, want) {
			t.Errorf("%s is %v, want %v", query, got, want)
		}
	}
	// A wrong key changes nothing, and says so.
	c.Secret = base64.StdEncoding.EncodeToString([]byte("another key for tests, 32 bytes."))
	bad := newRig()
	bad.o.Provider = RFC2136(c)
	bad.wanted = []Name{host("example.com", "192.0.2.66")}
	bad.run(settle + 2*look)
	if s := bad.Status(); s.Error == "" || strings.Contains(s.Error, c.Secret) {
		t.Errorf("with a wrong key: %+v", s)
	}
	if got := lookup(t, server, "A example.com."); !slices.Equal(got, []string{"192.0.2.2"}) {
		t.Errorf("with a wrong key it became %v", got)
	}
}

func lookup(t *testing.T, server, query string) []string {
	t.Helper()
	what, name, _ := strings.Cut(query, " ")
	in, _, err := (&mdns.Client{Net: "tcp", Timeout: 10 * time.Second}).Exchange(new(mdns.Msg).SetQuestion(name, mdns.StringToType[what]), server)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, rr := range in.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return out
}

// updateServer is a primary in this process (RFC 2136 section 3.4.2, RFC 8945).
func updateServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{}
	parser := mdns.NewZoneParser(strings.NewReader(testServed), "", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		z.rrs = append(z.rrs, rr)
	}
	srv := &mdns.Server{
		Listener: ln, Handler: z, TsigSecret: map[string]string{"landfall.": tsigSecret},
		MsgAcceptFunc: func(mdns.Header) mdns.MsgAcceptAction { return mdns.MsgAccept },
	}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = srv.Shutdown(); <-done })
	return ln.Addr().String()
}

type zone struct {
	mu  sync.Mutex
	rrs []mdns.RR
}

func (z *zone) ServeDNS(w mdns.ResponseWriter, m *mdns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	res := new(mdns.Msg).SetReply(m)
	switch {
	case m.Opcode == mdns.OpcodeUpdate && (m.IsTsig() == nil || w.TsigStatus() != nil):
		res.Rcode = mdns.RcodeNotAuth
	case m.Opcode == mdns.OpcodeUpdate:
		for _, rr := range m.Ns {
			z.update(rr)
		}
		res.SetTsig("landfall.", mdns.HmacSHA256, 300, time.Now().Unix())
	default:
		res.Answer = z.find(m.Question[0].Name, m.Question[0].Qtype)
	}
	_ = w.WriteMsg(res)
}

func (z *zone) update(rr mdns.RR) {
	h := rr.Header()
	switch h.Class {
	case mdns.ClassANY: // a set, or a name
		z.rrs = slices.DeleteFunc(z.rrs, func(has mdns.RR) bool {
			return has.Header().Name == h.Name && (h.Rrtype == mdns.TypeANY || h.Rrtype == has.Header().Rrtype)
		})
	case mdns.ClassINET:
		z.rrs = append(z.rrs, rr)
	}
}

func (z *zone) find(name string, qtype uint16) (out []mdns.RR) {
	exists := false
	for _, rr := range z.rrs {
		exists = exists || rr.Header().Name == name
		if rr.Header().Name == name && rr.Header().Rrtype == qtype {
			out = append(out, rr)
		}
	}
	if _, parent, ok := strings.Cut(name, "."); ok && !exists && !strings.HasPrefix(name, "*") {
		return z.find("*."+parent, qtype)
	}
	return out
}

// knot is Knot DNS with the test's zone.
func knot(t *testing.T) string {
	t.Helper()
	knotd, err := exec.LookPath("knotd")
	if err != nil {
		t.Skip("knotd is not installed (Debian: apt install knot): updates are tested against a server in this process only")
	}
	for range 3 { // the port may be taken between here and there
		if addr := startKnot(t, knotd); addr != "" {
			return addr
		}
	}
	t.Fatal("knotd did not start")
	return ""
}

func startKnot(t *testing.T, knotd string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close()
	dir := t.TempDir()
	conf := fmt.Sprintf(`
server:
  listen: 127.0.0.1@%d
  rundir: %q
  user: %q
log:
  - target: stderr
    any: warning
database:
  storage: %q
key:
  - id: landfall
    algorithm: hmac-sha256
    secret: %s
acl:
  - id: push
    key: landfall
    action: update
zone:
  - domain: example.com
    storage: %q
    file: example.com.zone
    acl: push
    zonefile-sync: -1
`, port, dir, userName(), dir, tsigSecret, dir)
	for name, text := range map[string]string{"knot.conf": conf, "example.com.zone": testServed} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, knotd, "-c", filepath.Join(dir, "knot.conf"))
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for deadline := time.After(20 * time.Second); ; {
		in, _, err := (&mdns.Client{Net: "tcp", Timeout: time.Second}).Exchange(new(mdns.Msg).SetQuestion(testZone, mdns.TypeSOA), addr)
		if err == nil && len(in.Answer) == 1 {
			return addr
		}
		select {
		case <-ended:
			return ""
		case <-deadline:
			return ""
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// userName is the user that knotd stays.
func userName() string {
	if os.Getuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}
