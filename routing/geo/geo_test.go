package geo

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"go.uber.org/goleak"

	"landfall/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func country(code string) mmdbtype.Map {
	return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}}
}

func city(code string, lat, lon float64) mmdbtype.Map {
	m := country(code)
	m["location"] = mmdbtype.Map{"latitude": mmdbtype.Float64(lat), "longitude": mmdbtype.Float64(lon)}
	return m
}

// write makes a database in dir and returns its path. The file is put in place by a rename, as updaters do.
func write(t testing.TB, dir string, ipVersion int, records map[string]mmdbtype.Map) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType: "Landfall-Test", IPVersion: ipVersion, RecordSize: 24, IncludeReservedNetworks: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for cidr, rec := range records {
		_, n, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(n, rec); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "test.mmdb")
	f, err := os.CreateTemp(dir, "new")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestLookup(t *testing.T) {
	db := mustOpen(t, write(t, t.TempDir(), 6, map[string]mmdbtype.Map{
		"192.0.2.0/24":    city("DE", 50.11, 8.68),
		"198.51.100.0/25": country("US"),
		"203.0.113.0/24":  city("GH", 0, 0), // 0, 0 is a place
		"127.1.0.0/16":    city("SG", 1.35, 103.99),
		"2001:db8::/32":   city("FR", 48.85, 2.35),
		"100.64.0.0/24":   city("FR", 91, 2.35), // no such place
		"100.64.1.0/24":   country("evil\r\nX: y"),
		"100.64.2.0/24":   {"postal": mmdbtype.Map{"code": mmdbtype.String("1")}},
	}))
	at := func(lat, lon float64) routing.Point { return routing.Point{Lat: lat, Lon: lon, Located: true} }
	for _, tc := range []struct {
		addr    string
		point   routing.Point
		country string
		network string
		found   bool
	}{
		{"192.0.2.77", at(50.11, 8.68), "DE", "192.0.2.0/24", true},
		{"::ffff:192.0.2.77", at(50.11, 8.68), "DE", "192.0.2.0/24", true},
		{"198.51.100.1", routing.Point{}, "US", "198.51.100.0/25", true},
		{"198.51.100.129", routing.Point{}, "", "198.51.100.128/25", false},
		{"203.0.113.1", at(0, 0), "GH", "203.0.113.0/24", true},
		{"127.1.0.5", at(1.35, 103.99), "SG", "127.1.0.0/16", true},
		{"2001:db8::1%eth0", at(48.85, 2.35), "FR", "2001:db8::/32", true},
		{"100.64.0.1", routing.Point{}, "FR", "100.64.0.0/24", true},
		{"100.64.1.1", routing.Point{}, "", "100.64.1.0/24", false},
		{"100.64.2.1", routing.Point{}, "", "100.64.2.0/24", false},
	} {
		p, ok := db.Lookup(netip.MustParseAddr(tc.addr))
		want := Place{Point: tc.point, Country: tc.country, Network: netip.MustParsePrefix(tc.network)}
		if p != want || ok != tc.found {
			t.Errorf("%s: got %+v %v, want %+v %v", tc.addr, p, ok, want, tc.found)
		}
	}
	if p, ok := db.Lookup(netip.Addr{}); ok || p != (Place{}) {
		t.Errorf("the zero address was found: %+v", p)
	}
}

func TestLookupOtherFamily(t *testing.T) {
	v4 := mustOpen(t, write(t, t.TempDir(), 4, map[string]mmdbtype.Map{"192.0.2.0/24": country("DE")}))
	if p, ok := v4.Lookup(netip.MustParseAddr("2001:db8::1")); ok || p != (Place{}) {
		t.Errorf("IPv6 in an IPv4 database: %+v %v", p, ok)
	}
	if p, ok := v4.Lookup(netip.MustParseAddr("192.0.2.1")); !ok || p.Network != netip.MustParsePrefix("192.0.2.0/24") {
		t.Errorf("IPv4 database: %+v %v", p, ok)
	}
	v6 := mustOpen(t, write(t, t.TempDir(), 6, map[string]mmdbtype.Map{"2001:db8::/32": country("DE")}))
	p, ok := v6.Lookup(netip.MustParseAddr("192.0.2.1"))
	if ok || !p.Network.Contains(netip.MustParseAddr("192.0.2.1")) || p.Network.Bits() > 1 {
		t.Errorf("IPv4 in an IPv6 database without an IPv4 part: %+v %v", p, ok)
	}
}

func TestNil(t *testing.T) {
	var db *DB
	if p, ok := db.Lookup(netip.MustParseAddr("192.0.2.1")); ok || p != (Place{}) {
		t.Error("a nil DB found something")
	}
	if db.Reload() != nil || db.Close() != nil {
		t.Error("a nil DB fails")
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	good, err := os.ReadFile(write(t, t.TempDir(), 6, map[string]mmdbtype.Map{"192.0.2.0/24": city("DE", 1, 2)}))
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), good...)
	for i, b := range damaged { // every value in the data section becomes a type that does not exist
		if b == 'D' && damaged[i+1] == 'E' {
			damaged[i-1] = 0xFF
		}
	}
	for name, data := range map[string][]byte{
		"text.mmdb": []byte("hello"), "empty.mmdb": nil, "short.mmdb": good[:len(good)/2], "damaged.mmdb": damaged,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	asn := write(t, t.TempDir(), 6, map[string]mmdbtype.Map{"192.0.2.0/24": {"autonomous_system_number": mmdbtype.Uint32(64500)}})
	flat := write(t, t.TempDir(), 6, map[string]mmdbtype.Map{"192.0.2.0/24": {"country": mmdbtype.String("DE")}})
	bare := write(t, t.TempDir(), 6, nil)
	for _, tc := range []struct{ path, want string }{
		{filepath.Join(dir, "absent.mmdb"), "check dns.geoip"},
		{filepath.Join(dir, "text.mmdb"), "no MaxMind database"},
		{filepath.Join(dir, "empty.mmdb"), "no MaxMind database"},
		{filepath.Join(dir, "short.mmdb"), "cut short"},
		{filepath.Join(dir, "damaged.mmdb"), "damaged"},
		{dir, "no regular file"},
		{asn, "use a City or Country database"},
		{flat, "another shape"},
		{bare, "it is empty"},
	} {
		db, err := Open(tc.path)
		if err == nil || db != nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", filepath.Base(tc.path), err, tc.want)
		}
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	addr := netip.MustParseAddr("192.0.2.1")
	path := write(t, dir, 6, map[string]mmdbtype.Map{"192.0.2.0/24": country("DE")})
	db := mustOpen(t, path)
	expect := func(want string) {
		t.Helper()
		if p, _ := db.Lookup(addr); p.Country != want {
			t.Fatalf("got country %q, want %q", p.Country, want)
		}
	}
	expect("DE")
	before := db.open.Load()
	if err := db.Reload(); err != nil || db.open.Load() != before {
		t.Fatalf("an unchanged file was read again: %v", err)
	}
	write(t, dir, 6, map[string]mmdbtype.Map{"192.0.2.0/24": country("FR")})
	if err := db.Reload(); err != nil {
		t.Fatal(err)
	}
	expect("FR")
	for range 2 { // a bad file is reported every time, and never used
		if err := os.WriteFile(path, []byte("half a file"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := db.Reload(); err == nil {
			t.Fatal("a bad file was accepted")
		}
		expect("FR")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := db.Reload(); err == nil {
		t.Fatal("an absent file was accepted")
	}
	expect("FR")
	write(t, dir, 6, map[string]mmdbtype.Map{"192.0.2.0/24": country("US")})
	if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil { // older than the last: still another file
		t.Fatal(err)
	}
	if err := db.Reload(); err != nil {
		t.Fatal(err)
	}
	expect("US")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	expect("")
}

func TestLookupWhileReloading(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, write(t, dir, 6, map[string]mmdbtype.Map{"192.0.2.0/24": country("DE")}))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if p, ok := db.Lookup(netip.MustParseAddr("192.0.2.1")); !ok || p.Country == "" {
					t.Error("nothing found during a reload")
					return
				}
			}
		})
	}
	for i := range 10 {
		write(t, dir, 6, map[string]mmdbtype.Map{"192.0.2.0/24": country([]string{"FR", "US"}[i%2])})
		if err := db.Reload(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
}

func FuzzOpen(f *testing.F) {
	good, err := os.ReadFile(write(f, f.TempDir(), 6, map[string]mmdbtype.Map{"192.0.2.0/24": city("DE", 1, 2)}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-20])
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "fuzz.mmdb")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(path)
		if err != nil {
			return
		}
		for _, s := range []string{"192.0.2.1", "255.255.255.255", "2001:db8::1", "::"} {
			a := netip.MustParseAddr(s)
			p, ok := db.Lookup(a)
			if p.Network.IsValid() && !p.Network.Contains(a) {
				t.Errorf("%s lies outside of its network %s", a, p.Network)
			}
			if ok && !p.Point.Located && p.Country == "" {
				t.Errorf("%s: found nothing, and said so otherwise", a)
			}
			if pt := p.Point; pt.Located && !(pt.Lat >= -90 && pt.Lat <= 90 && pt.Lon >= -180 && pt.Lon <= 180) {
				t.Errorf("%s: there is no place %+v", a, pt)
			}
		}
	})
}

// Records that share a slot of what is remembered are not taken for each other.
func TestRecordsShareASlot(t *testing.T) {
	db := mustOpen(t, write(t, t.TempDir(), 6, map[string]mmdbtype.Map{"192.0.2.0/24": city("DE", 50.11, 8.68), "198.51.100.0/24": city("IE", 53.35, -6.26)}))
	addr := netip.MustParseAddr("192.0.2.77")
	want, _ := db.Lookup(addr)
	other, _ := db.Lookup(netip.MustParseAddr("198.51.100.1"))
	if want.Country != "DE" || other.Country != "IE" {
		t.Fatalf("found %+v and %+v", want, other)
	}
	c := db.open.Load()
	for i := range c.recent {
		c.recent[i].Store(&found{offset: 1 << 40, country: "FR"})
	}
	for range 2 { // decoded, then remembered
		if got, ok := db.Lookup(addr); !ok || got != want {
			t.Errorf("found %+v, not %+v", got, want)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	db := mustOpen(b, write(b, b.TempDir(), 6, map[string]mmdbtype.Map{"192.0.2.0/24": city("DE", 50.11, 8.68)}))
	addr := netip.MustParseAddr("192.0.2.77")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := db.Lookup(addr); !ok {
			b.Fatal("not found")
		}
	}
}

// A database of autonomous systems tells their numbers, and no other kind is taken for one.
func TestASN(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, 4, map[string]mmdbtype.Map{"192.0.2.0/24": {"autonomous_system_number": mmdbtype.Uint32(64500)}})
	d, err := OpenASN(path)
	if err != nil {
		t.Fatal(err)
	}
	for a, want := range map[string]uint32{"192.0.2.9": 64500, "::ffff:192.0.2.9": 64500, "198.51.100.1": 0, "2001:db8::1": 0} {
		if got := d.ASN(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s is in %d, want %d", a, got, want)
		}
	}
	if (*DB)(nil).ASN(netip.MustParseAddr("192.0.2.9")) != 0 || d.ASN(netip.Addr{}) != 0 {
		t.Error("nothing is known without a database or an address")
	}
	if err := d.Close(); err != nil || d.ASN(netip.MustParseAddr("192.0.2.9")) != 0 {
		t.Errorf("after Close: %v", err)
	}
	if _, err := Open(path); err == nil {
		t.Error("a database of autonomous systems is taken for one of places")
	}
	if _, err := OpenASN(write(t, t.TempDir(), 4, map[string]mmdbtype.Map{"192.0.2.0/24": country("IE")})); err == nil {
		t.Error("a database of places is taken for one of autonomous systems")
	}
}
