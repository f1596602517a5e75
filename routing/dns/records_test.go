package dns

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"landfall/configs"
)

// richRecords are the records of the zone rich.test, which has one of everything.
var richRecords = []string{
	"@ MX 10 Mail.example.net.", "@ TXT \"v=spf1 -all\"", "@ TXT \"another\"", "@ CAA 0 issue \"ca.example\"",
	"_sip._tcp SRV 1 2 5060 host", "host A 192.0.2.7", "host AAAA 2001:db8::7", "host HTTPS 1 . alpn=h3,h2 ipv4hint=192.0.2.7",
	"alias CNAME host", "alias2 CNAME alias", "out CNAME www.example.net.", "www-alias CNAME www", "loop CNAME pool", "pool CNAME loop",
	"dead CNAME nothing", "*.wild TXT \"any\"", "*.wild A 192.0.2.8", "deep.er.wild TXT \"not any\"", "*.walias CNAME host",
	"child NS ns.child", "child NS ns.example.net.", "child DS 4711 13 2 AABBCCDDEEFF00112233445566778899AABBCCDDEEFF00112233445566778899",
	"ns.child A 192.0.2.9", "plain NS ns.example.net.", "odd TYPE65280 \\# 3 010203",
	"taken CNAME host", "cut NS ns.example.net.", // services have these too: the records win
}

func richZone(t testing.TB) Zone {
	z := testZone("rich.test", "www.rich.test", "rich.test", "*.svc.rich.test", "v4only.rich.test")
	var err error
	if z.Records, err = configs.ParseRecords("rich.test", richRecords); err != nil {
		t.Fatal(err)
	}
	z.HTTPS = &HTTPS{ALPN: []string{"h3", "h2"}, Port: 8443}
	z.Secondaries = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	return z
}

func richOptions(t testing.TB) Options {
	o := testOptions()
	o.Zones = []Zone{richZone(t)}
	o.Answers = 2
	o.NSID = "node-1"
	o.Steer = newFleet("www.rich.test", "rich.test", "*.svc.rich.test", "v4only.rich.test", "taken.rich.test", "cut.rich.test")
	return o
}

// signedOptions is the same zone, signed by a KSK and a ZSK.
func signedOptions(t testing.TB, now time.Time) Options {
	o := richOptions(t)
	dir := t.TempDir()
	writeKey(t, dir, "rich.test.", 257, "")
	writeKey(t, dir, "rich.test.", 256, "")
	keys, err := LoadKeys(dir, "rich.test", now)
	if err != nil {
		t.Fatal(err)
	}
	o.Zones[0].Keys = keys
	o.Now = func() time.Time { return now }
	return o
}

// writeKey makes a key pair in files as dnssec-keygen does.
func writeKey(t testing.TB, dir, zone string, flags uint16, times string) *mdns.DNSKEY {
	t.Helper()
	k := &mdns.DNSKEY{Hdr: mdns.RR_Header{Name: zone, Rrtype: mdns.TypeDNSKEY, Class: mdns.ClassINET, Ttl: 3600}, Flags: flags, Protocol: 3, Algorithm: mdns.ECDSAP256SHA256}
	private, err := k.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, fmt.Sprintf("K%s+013+%05d", zone, k.KeyTag()))
	for name, text := range map[string]string{".key": k.String() + "\n", ".private": k.PrivateKeyString(private.(*ecdsa.PrivateKey)) + times} {
		if err := os.WriteFile(base+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func askServer(t testing.TB, s *Server, name string, qtype uint16, do, co bool) *mdns.Msg {
	t.Helper()
	m := new(mdns.Msg).SetQuestion(name, qtype)
	m.SetEdns0(1232, do)
	if co {
		m.IsEdns0().Hdr.Ttl |= flagCO
	}
	res := s.Respond(nil, mustPack(t, m), resolverAddr, true)
	var out mdns.Msg
	if err := out.Unpack(res); err != nil {
		t.Fatalf("%s %d: %v", name, qtype, err)
	}
	return &out
}

// TestTransfer copies the zone by the library's own client, over a real connection.
func TestTransfer(t *testing.T) {
	s := mustNew(t, richOptions(t))
	udp, tcp, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, udp, tcp) }()
	defer func() { cancel(); <-done }()

	got := transfer(t, tcp.Addr(), new(mdns.Msg).SetAxfr("rich.test."))
	if ixfr := transfer(t, tcp.Addr(), new(mdns.Msg).SetIxfr("rich.test.", 41, "ns1.rich.test.", "hostmaster.rich.test.")); len(ixfr) != len(got) {
		t.Errorf("IXFR has %d records, AXFR %d", len(ixfr), len(got))
	}
	if len(got) < len(richRecords)+4 || got[0].Header().Rrtype != mdns.TypeSOA || got[len(got)-1].Header().Rrtype != mdns.TypeSOA {
		t.Fatalf("%d records, first %v", len(got), got[0])
	}
	for _, want := range []string{"MX 10 mail.example.net.", "*.wild.rich.test. 3600 IN A 192.0.2.8", "NS ns1.rich.test.", "TYPE65280 \\# 3 010203"} {
		if !slices.ContainsFunc(got, func(rr mdns.RR) bool { return strings.Contains(strings.ReplaceAll(rr.String(), "\t", " "), want) }) {
			t.Errorf("no %q", want)
		}
	}
	z := richZone(t)
	z.Secondaries = nil
	if err := s.SetConfig([]Zone{z}, 2); err != nil {
		t.Fatal(err)
	}
	if got := transfer(t, tcp.Addr(), new(mdns.Msg).SetAxfr("rich.test.")); got != nil {
		t.Error("sent to somebody who is not listed")
	}
}

func transfer(t *testing.T, addr net.Addr, query *mdns.Msg) []mdns.RR {
	t.Helper()
	in, err := new(mdns.Transfer).In(query, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	var out []mdns.RR
	for e := range in {
		if e.Error != nil {
			return nil
		}
		out = append(out, e.RR...)
	}
	return out
}

// TestCookies holds the life of a cookie (RFC 7873 §5, RFC 9018 §4.3).
func TestCookies(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	o := richOptions(t)
	o.Now = func() time.Time { return now }
	o.ResponseRate, o.Slip = 1, 1
	s := mustNew(t, o)
	ask := func(cookie string) (rcode int, got string, tc bool) {
		m := new(mdns.Msg).SetQuestion("www.rich.test.", mdns.TypeA)
		m.SetEdns0(1232, false)
		if cookie != "" {
			m.IsEdns0().Option = append(m.IsEdns0().Option, &mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: cookie})
		}
		var r mdns.Msg
		if err := r.Unpack(s.Respond(nil, mustPack(t, m), resolverAddr, false)); err != nil {
			t.Fatal(err)
		}
		for _, o := range r.IsEdns0().Option {
			if c, ok := o.(*mdns.EDNS0_COOKIE); ok {
				got = c.Cookie
			}
		}
		return r.Rcode, got, r.Truncated
	}
	const client = "0102030405060708"
	rcode, cookie, _ := ask(client)
	if rcode != 0 || len(cookie) != 48 || !strings.HasPrefix(cookie, client+"01000000") {
		t.Fatalf("rcode %d, cookie %q", rcode, cookie)
	}
	ask("") // the rate is used up
	if _, _, tc := ask(""); !tc {
		t.Error("no slip past the rate")
	}
	if rcode, got, _ := ask(client); rcode != mdns.RcodeBadCookie || len(got) != 48 {
		t.Errorf("past the rate without a server cookie: rcode %d, cookie %q, want BADCOOKIE and a new one", rcode, got)
	}
	if rcode, got, tc := ask(cookie); rcode != 0 || got != cookie || tc {
		t.Errorf("with a valid cookie: rcode %d, cookie %q, tc %t", rcode, got, tc)
	}
	now = now.Add(cookieRenew)
	if rcode, got, _ := ask(cookie); rcode != 0 || got == cookie {
		t.Errorf("an old one is not renewed: rcode %d, %q", rcode, got)
	}
	now = now.Add(-cookieRenew - cookieAhead - time.Second)
	if s.cookieValid(cookie, t) {
		t.Error("a cookie from the future is valid")
	}
	if rcode, _, _ := ask(client + "0102"); rcode != mdns.RcodeFormatError {
		t.Errorf("a cookie of a wrong length: rcode %d", rcode)
	}
}

func (s *Server) cookieValid(hexCookie string, t *testing.T) bool {
	b := make([]byte, len(hexCookie)/2)
	if _, err := fmt.Sscanf(hexCookie, "%x", &b); err != nil {
		t.Fatal(err)
	}
	valid, _ := s.cookies.check(b, resolverAddr.Addr(), s.now())
	return valid
}

// TestCookieVector is RFC 9018 appendix A.1, whose server cookie has another clock and secret.
func TestCookieVector(t *testing.T) {
	c := cookies{0xe5e973e5a6b2a43f, 0x48e7dc849e37bfcf} // e5e973e5a6b2a43f48e7dc849e37bfcf
	c.k0, c.k1 = reverse(c.k0), reverse(c.k1)
	client := []byte{0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57}
	got := fmt.Sprintf("%x", c.make(nil, client, netip.MustParseAddr("198.51.100.100"), 1559731985))
	if want := "010000005cf79f111f8130c3eee29480"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func reverse(v uint64) (out uint64) {
	for range 8 {
		out, v = out<<8|v&0xff, v>>8
	}
	return out
}
