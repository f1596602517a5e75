package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// running is a server on real sockets.
type running struct {
	*Server
	addr string
	port int
	reg  *prometheus.Registry
	stop func()
}

func start(t *testing.T, addr string, change func(*Options)) *running {
	t.Helper()
	r := &running{reg: prometheus.NewRegistry()}
	o := testOptions()
	o.Metrics = NewMetrics(r.reg)
	if change != nil {
		change(&o)
	}
	r.Server = mustNew(t, o)
	udp, tcp, err := r.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	r.addr, r.port = udp.LocalAddr().String(), udp.LocalAddr().(*net.UDPAddr).Port
	if p := tcp.Addr().(*net.TCPAddr).Port; p != r.port {
		t.Fatalf("UDP port %d, TCP port %d", r.port, p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, udp, tcp) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) eventually(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for counter(t, r.reg, name, labels...) != want {
		if time.Now().After(deadline) {
			t.Fatalf("%s%v is %v, want %v", name, labels, counter(t, r.reg, name, labels...), want)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func framed(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}

func readFramed(t *testing.T, c io.Reader) *mdns.Msg {
	t.Helper()
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		t.Fatalf("no answer: %v", err)
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	var m mdns.Msg
	if err := m.Unpack(b); err != nil {
		t.Fatal(err)
	}
	return &m
}

func TestServeBothTransports(t *testing.T) {
	r := start(t, "127.0.0.1:0", nil)
	for _, network := range []string{"udp", "tcp"} {
		c := mdns.Client{Net: network, Timeout: 20 * time.Second}
		m := new(mdns.Msg).SetQuestion("wWw.edge.test.", mdns.TypeA)
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = []mdns.EDNS0{subnetOption(netip.MustParsePrefix("198.51.100.0/24"))}
		res, _, err := c.Exchange(m, r.addr)
		if err != nil {
			t.Fatalf("%s: %v", network, err)
		}
		if len(res.Answer) != 2 || res.Answer[0].(*mdns.A).A.String() != "192.0.2.129" || res.Question[0].Name != "wWw.edge.test." {
			t.Errorf("%s: %v", network, res)
		}
	}
	// Too big for UDP: truncated there, whole by TCP, as clients do it.
	m := new(mdns.Msg).SetQuestion("long.test.", mdns.TypeNS)
	res, _, err := (&mdns.Client{Net: "udp", Timeout: 20 * time.Second}).Exchange(m, r.addr)
	if err != nil || !res.Truncated || len(res.Answer) != 0 {
		t.Fatalf("want TC: %v %v", res, err)
	}
	res, _, err = (&mdns.Client{Net: "tcp", Timeout: 20 * time.Second}).Exchange(m, r.addr)
	if err != nil || res.Truncated || len(res.Answer) != 13 || len(res.Extra) != 26 {
		t.Fatalf("want all: %v %v", res, err)
	}
}

// A socket for every address answers from the one that was asked: a connected client takes no other.
func TestServeWildcard(t *testing.T) {
	for _, bind := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		t.Run(bind, func(t *testing.T) {
			r := start(t, bind, nil)
			for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.1.2.3", "::1"} {
				addr := net.JoinHostPort(host, r.addr[strings.LastIndex(r.addr, ":")+1:])
				if host == "::1" {
					if bind == "0.0.0.0:0" {
						continue
					}
					if c, err := net.Dial("udp", addr); err != nil {
						t.Logf("no IPv6 here: %v", err)
						continue
					} else {
						_ = c.Close()
					}
				}
				c := mdns.Client{Timeout: 20 * time.Second}
				res, _, err := c.Exchange(new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeA), addr)
				if err != nil || len(res.Answer) == 0 {
					t.Errorf("%s: %v", host, err)
				}
			}
		})
	}
}

func TestServeUDPDrops(t *testing.T) {
	r := start(t, "127.0.0.1:0", func(o *Options) { o.UDPWorkers = 1 })
	c := dial(t, "udp", r.addr)
	for _, b := range [][]byte{{1}, make([]byte, 1300), {0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	// The one worker takes packets in their order: when this is answered, the others have been dropped.
	if _, err := c.Write(mustPack(t, new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeA))); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1500)
	if _, err := c.Read(b); err != nil {
		t.Fatal(err)
	}
	for _, reason := range []string{"malformed", "oversize", "not_a_query"} {
		if v := counter(t, r.reg, "landfall_dns_dropped_total", reason); v != 1 {
			t.Errorf("%s counted %v times", reason, v)
		}
	}
}

func TestClientOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1:2": "2001:db8::", "fe80::1%eth0": "fe80::",
	} {
		if got := clientOf(netip.MustParseAddr(addr)); got != netip.MustParseAddr(want) {
			t.Errorf("%s counts for %s, want %s", addr, got, want)
		}
	}
}

// Many clients at once, and everybody gets an answer of their own.
func TestServeConcurrently(t *testing.T) {
	r := start(t, "127.0.0.1:0", nil)
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			c := mdns.Client{Net: []string{"udp", "tcp"}[i%2], Timeout: 20 * time.Second}
			for range 20 {
				res, _, err := c.Exchange(new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeAAAA), r.addr)
				if err != nil || len(res.Answer) != 8 {
					t.Errorf("%v %v", res, err)
					return
				}
			}
		})
	}
	for range 20 {
		if err := r.SetConfig(testOptions().Zones, 8); err != nil {
			t.Error(err)
		}
	}
	clients.Wait()
}

func TestTCPPipelining(t *testing.T) {
	r := start(t, "127.0.0.1:0", nil)
	c := dial(t, "tcp", r.addr)
	// More than the 128 queries that the library's server stops at, in writes that cut messages anywhere.
	var all []byte
	const n = 300
	for i := range n {
		m := new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeA)
		m.Id = uint16(i)
		all = append(all, framed(mustPack(t, m))...)
	}
	go func() {
		for b := range chunks(all, 1000) {
			if _, err := c.Write(b); err != nil {
				t.Error(err)
			}
		}
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	for i := range n {
		if m := readFramed(t, c); m.Id != uint16(i) || len(m.Answer) != 2 {
			t.Fatalf("answer %d: %v", i, m)
		}
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
		t.Errorf("after the last answer: %x %v", rest, err)
	}
	r.eventually(t, 0, "landfall_dns_tcp_connections")
}

func chunks(b []byte, n int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}

func TestTCPRubbishEndsTheConnection(t *testing.T) {
	r := start(t, "127.0.0.1:0", nil)
	good := framed(mustPack(t, new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeA)))
	for name, rubbish := range map[string][]byte{
		"short":    framed([]byte{1, 2}),
		"empty":    framed(nil),
		"response": framed([]byte{0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0}),
		"oversize": {0xFF, 0xFF, 1, 2, 3},
		"http":     []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	} {
		c := dial(t, "tcp", r.addr)
		if _, err := c.Write(append(bytes.Clone(good), rubbish...)); err != nil {
			t.Fatal(err)
		}
		// What was asked before is answered before.
		if m := readFramed(t, c); len(m.Answer) != 2 {
			t.Errorf("%s: %v", name, m)
		}
		if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
			t.Errorf("%s: not closed: %x %v", name, rest, err)
		}
		_ = c.Close()
	}
}

func TestTCPConnectionBounds(t *testing.T) {
	r := start(t, "127.0.0.1:0", func(o *Options) { o.MaxTCP, o.MaxTCPPerClient = 3, 2 })
	var open []net.Conn
	hold := func(from string) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		open = append(open, c)
	}
	hold("127.0.0.1")
	hold("127.0.0.1")
	hold("127.0.0.1") // one too many
	r.eventually(t, 1, "landfall_dns_dropped_total", "tcp_connections_per_client")
	hold("127.0.0.2")
	hold("127.0.0.3") // the fourth
	r.eventually(t, 1, "landfall_dns_dropped_total", "tcp_connections")
	r.eventually(t, 3, "landfall_dns_tcp_connections")
	for _, c := range open {
		_ = c.Close()
	}
	r.eventually(t, 0, "landfall_dns_tcp_connections")
	r.conns.mu.Lock()
	n := len(r.conns.byClient)
	r.conns.mu.Unlock()
	if n != 0 {
		t.Errorf("%d clients are still counted", n)
	}
	hold("127.0.0.1")
	r.eventually(t, 1, "landfall_dns_tcp_connections")
}

// A server that stops answers what it has, closes idle connections at once, and frees its port.
func TestServeDrains(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	f := newFleet(testHosts...)
	f.asked = func(string, netip.Addr) { entered <- struct{}{}; <-release }
	r := start(t, "127.0.0.1:0", func(o *Options) { o.Steer = f })
	idle := dial(t, "tcp", r.addr)
	busy := []net.Conn{dial(t, "udp", r.addr), dial(t, "tcp", r.addr)}
	q := mustPack(t, new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeA))
	if _, err := busy[0].Write(q); err != nil {
		t.Fatal(err)
	}
	if _, err := busy[1].Write(framed(q)); err != nil {
		t.Fatal(err)
	}
	<-entered
	<-entered
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.stop() }()
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection got %v, want EOF", err)
	}
	_ = idle.Close()
	select {
	case <-stopped:
		t.Error("Serve returned with queries under way")
	default:
	}
	close(release)
	b := make([]byte, 1500)
	if n, err := busy[0].Read(b); err != nil || n == 0 {
		t.Errorf("UDP answer lost: %v", err)
	}
	if m := readFramed(t, busy[1]); len(m.Answer) != 2 {
		t.Errorf("TCP answer: %v", m)
	}
	_ = busy[1].Close()
	<-stopped
	udp, tcp, err := r.Listen(r.addr)
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	_ = udp.Close()
	_ = tcp.Close()
}

// One socket that fails ends the other, too, and says so.
func TestServeSocketFails(t *testing.T) {
	s := mustNew(t, testOptions())
	for _, which := range []string{"UDP", "TCP"} {
		udp, tcp, err := s.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Serve(t.Context(), udp, tcp) }()
		if which == "UDP" {
			_ = udp.Close()
		} else {
			_ = tcp.Close()
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), which) {
			t.Errorf("%s closed: %v", which, err)
		}
	}
}

func TestListenErrors(t *testing.T) {
	s := mustNew(t, testOptions())
	udp, tcp, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	defer tcp.Close()
	addr := udp.LocalAddr().String()
	if _, _, err := s.Listen(addr); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), addr+": the port is taken") {
		t.Errorf("a taken port: %v", err)
	}
	_ = udp.Close() // now only TCP is taken; the UDP socket must not leak
	for range 2 {
		if _, _, err := s.Listen(addr); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a port taken for TCP: %v", err)
		}
	}
	if _, _, err := s.Listen("192.0.2.1:0"); err == nil || !strings.Contains(err.Error(), "does not have the address") {
		t.Errorf("another machine's address: %v", err)
	}
	if _, _, err := s.Listen("53"); err == nil || !strings.Contains(err.Error(), "check listen.dns") {
		t.Errorf("no address: %v", err)
	}
}

// Clients that are slow lose their connection: before a query, in a query, and when they read no answer.
func TestTCPTimeouts(t *testing.T) {
	q := framed(mustPack(t, new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeA)))
	for name, tc := range map[string]struct {
		sent []byte
		want time.Duration
	}{
		"silent":       {nil, tcpIdle},
		"half a query": {q[:10], tcpIdle},
		"not reading":  {q, tcpWrite},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := mustNew(t, testOptions())
				ours, theirs := net.Pipe()
				begin := time.Now()
				var took time.Duration
				done := make(chan struct{})
				go func() {
					defer close(done)
					s.serveConn(t.Context(), ours, resolverAddr)
					took = time.Since(begin)
					_ = ours.Close()
				}()
				if _, err := theirs.Write(tc.sent); err != nil {
					t.Fatal(err)
				}
				<-done
				_ = theirs.Close()
				if took != tc.want {
					t.Errorf("closed after %v, want %v", took, tc.want)
				}
			})
		})
	}
}

func TestReadFailedPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, testOptions())
		pause, begin := firstPause, time.Now()
		for range 10 {
			if err := s.readFailed(t.Context(), "TCP", syscall.EMFILE, &pause); err != nil {
				t.Fatal(err)
			}
		}
		if pause != lastPause || time.Since(begin) != 3275*time.Millisecond {
			t.Errorf("pause %v after %v", pause, time.Since(begin))
		}
	})
}
