package configs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const smallestFile = "services: {web: {hosts: [\"*\"], pools: {any: {origins: [\"http://127.0.0.1:3000\"]}}}}\n"

func TestSmallestFileGetsTheDefaults(t *testing.T) {
	c := mustParse(t, smallestFile)
	sum := sha256.Sum256([]byte(smallestFile))
	if c.Hash != hex.EncodeToString(sum[:])[:12] {
		t.Errorf("hash %q", c.Hash)
	}
	if !reflect.DeepEqual(c.Regions, map[string]Region{"local": {}}) || !reflect.DeepEqual(c.RegionNames(), []string{"local"}) {
		t.Errorf("regions %v", c.Regions)
	}
	if c.Fleet != "landfall" || c.Listen.Admin != "127.0.0.1:9901" || c.Listen.HTTPRedirect == nil || !*c.Listen.HTTPRedirect {
		t.Errorf("fleet %q, listen %+v", c.Fleet, c.Listen)
	}
	if c.Cache.Memory != 256<<20 || c.Health.Panic != 0.5 || c.Limits.HeaderTimeout.D() != 10*time.Second {
		t.Errorf("cache %+v, health %+v, limits %+v", c.Cache, c.Health, c.Limits)
	}
	if c.TLS.ACME != nil || c.Services["web"].Pool.Check != nil {
		t.Error("an optional section was filled in")
	}
	want := []Route{{
		Match:    Match{Path: "/*"},
		Cache:    &RouteCache{},
		Priority: "normal",
		Timeout: RouteTimeout{
			Connect: Duration(2 * time.Second), FirstByte: Duration(30 * time.Second), Idle: Duration(5 * time.Minute),
		},
		Retry: Retry{Attempts: 2, On: []string{"connect", "reset", "timeout", "502", "503", "504"}, Budget: 0.2},
	}}
	if got := c.Services["web"].Routes; !reflect.DeepEqual(got, want) {
		t.Errorf("routes %+v, want %+v", got, want)
	}
}

func TestDefaultsReachListsAndMaps(t *testing.T) {
	c := mustParse(t, service("    pool: {check: {}}\n    routes: [{match: {methods: [GET]}}, {cache: off}]\n")+
		"listen: {dns: [\":53\"]}\ndns: {zones: {a.example.com: {}, b.example.com: {ttl: 1m}}}\nadmin: {tokens: [{name: a, hash: $2y$10$PvTj4j3mCO9hwbYJzqKFCeWw4EhN1oTCnQjNCbVtNXjSyCwmUpa8e}]}\n")
	web := c.Services["web"]
	if web.Pool.Check.Expect != (StatusRange{200, 299}) || web.Pool.Check.Fall != 3 {
		t.Errorf("check %+v", web.Pool.Check)
	}
	if web.Routes[0].Match.Path != "/*" || web.Routes[0].Cache == nil || web.Routes[0].Cache.Off || !web.Routes[1].Cache.Off {
		t.Errorf("routes %+v", web.Routes)
	}
	if z := c.DNS.Zones["a.example.com"]; z.TTL.D() != 20*time.Second || len(z.Nameservers) != 2 || z.Contact != "hostmaster" {
		t.Errorf("zone %+v", z)
	}
	if allow := c.Admin.Tokens[0].Allow; !reflect.DeepEqual(allow, []string{"read"}) {
		t.Errorf("allow %v", allow)
	}
	if c.Shutdown.DNSWaitSet || c.Shutdown.DNSWait.D() != time.Minute {
		t.Errorf("shutdown %+v: want the longest TTL", c.Shutdown)
	}
}

func TestMinTTL(t *testing.T) {
	for ttl, want := range map[string]time.Duration{"20s": 5 * time.Second, "10s": 2 * time.Second, "1s": time.Second, "20s, min_ttl: 20s": 20 * time.Second} {
		c := mustParse(t, service(`listen: {dns: [":53"]}`+"\n"+`dns: {zones: {a.example.com: {ttl: `+ttl+`}}}`))
		if got := c.DNS.Zones["a.example.com"].MinTTL.D(); got != want {
			t.Errorf("ttl: %s has a min_ttl of %s, want %s", ttl, got, want)
		}
	}
}

func TestDNSWait(t *testing.T) {
	if s := mustParse(t, service("shutdown: {dns_wait: 0s}")).Shutdown; !s.DNSWaitSet || s.DNSWait != 0 {
		t.Errorf("%+v", s)
	}
	if s := mustParse(t, service("shutdown: {}")).Shutdown; s.DNSWaitSet || s.DNSWait != 0 {
		t.Errorf("%+v", s)
	}
	long := service("listen: {dns: [\":53\"]}\ndns: {zones: {a.example.com: {ttl: 12h}}}")
	if s := mustParse(t, long).Shutdown; s.DNSWait.D() != time.Hour {
		t.Errorf("%+v: want the bound of dns_wait", s)
	}
}

func TestFormsOfAValue(t *testing.T) {
	c := mustParse(t, service(`    routes:
      - {match: {path: /a}, cache: on}
      - {match: {path: /b}, cache: off}
      - {match: {path: /c}, cache: "off"}
      - {match: {path: /d}, cache: false}
      - {match: {path: /e}, cache: {}}
      - {match: {path: /f}, cache: {ttl: 0s}}
`)+"listen: {http_redirect: false, mesh: ':7946', peer: ':7443'}\nmesh: {join: 10.0.0.1, key: \"${LANDFALL_MESH_KEY}\", tls: {ca: a, cert: b, key: c}}\ntls: {min_version: 1.3}\n")
	var off []bool
	for _, r := range c.Services["web"].Routes {
		off = append(off, r.Cache.Off)
	}
	if !reflect.DeepEqual(off, []bool{false, true, true, true, false, false}) {
		t.Errorf("off: %v", off)
	}
	if ttl := c.Services["web"].Routes[5].Cache.TTL; ttl == nil || *ttl != 0 {
		t.Errorf("an explicit ttl of 0s is %v", ttl)
	}
	if *c.Listen.HTTPRedirect || c.TLS.MinVersion != "1.3" || !reflect.DeepEqual(c.Mesh.Join, StringList{"10.0.0.1"}) || !reflect.DeepEqual(c.Mesh.Key, StringList{testKey}) {
		t.Errorf("%+v %+v %v", c.Listen, c.TLS, c.Mesh.Join)
	}
}

func TestHostsAreLowerCased(t *testing.T) {
	c := mustParse(t, `services: {web: {hosts: [WWW.Example.com, "*.Example.com"], pools: {any: {origins: ["http://A:1"]}}}}`)
	if got := c.Services["web"].Hosts; !reflect.DeepEqual(got, []string{"www.example.com", "*.example.com"}) {
		t.Errorf("%v", got)
	}
}

func TestAnchorsAndMerges(t *testing.T) {
	c := mustParse(t, `services:
  one:
    hosts: [a.example.com]
    pools: &pools {any: {origins: ["http://127.0.0.1:3000"]}}
    pool: &policy
      check: {path: /healthz, rise: 5}
      breaker: {requests: 10}
  two:
    hosts: [b.example.com]
    pools: *pools
    pool:
      <<: *policy
      breaker: {requests: 20}
`)
	one, two := c.Services["one"], c.Services["two"]
	if !reflect.DeepEqual(one.Pools, two.Pools) || two.Pool.Check.Rise != 5 || one.Pool.Breaker.Requests != 10 || two.Pool.Breaker.Requests != 20 {
		t.Errorf("%+v\n%+v", one, two)
	}
	if one.Pool.Check == two.Pool.Check {
		t.Error("two services share one check")
	}
}

func TestMergeBombIsRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("services:\n  a0: &a0 {hosts: [a], pools: {any: {origins: [\"http://a:1\"]}}}\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&b, "  a%d: &a%d {<<: [*a%d, *a%d]}\n", i, i, i-1, i-1)
	}
	_, err := Parse("bomb.yaml", []byte(b.String()), "", environment)
	if err == nil || !strings.Contains(err.Error(), "aliases of this file stand for more than") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	c := mustParse(t, `fleet: ${WITH_NEWLINE}
health: {all_down: "${REGION}"}
regions: {eu-west: {location: ["5${NUMBER}", 0]}}
dns: {answers: "${NUMBER}"}
cache: {memory: "${NUMBER}KiB", max_object: 1KiB}
services:
  web:
    hosts: ["a${NUMBER}.example.com"]
    pools: {eu-west: {origins: ["http://h${NUMBER}:8${NUMBER}"]}}
    pool: {check: {path: "/$$x/$${NUMBER}/$y$"}}
`)
	web := c.Services["web"]
	if c.Fleet != "web" || c.Health.AllDown != "eu-west" || c.Regions["eu-west"].Location.Lat != 57 || c.DNS.Answers != 7 || c.Cache.Memory != 7<<10 {
		t.Errorf("%+v", c)
	}
	if web.Hosts[0] != "a7.example.com" || web.Pools["eu-west"].Origins[0] != "http://h7:87" || web.Pool.Check.Path != "/$x/${NUMBER}/$y$" {
		t.Errorf("%+v %+v", web, web.Pool.Check)
	}
}

func TestPathsAreResolved(t *testing.T) {
	text := service(`mesh: {tls: {ca: ca.pem, cert: "certs/${NODE}.pem", key: "/abs/${NODE}.key"}}
tls: {certificates: [{cert: a.pem, key: ../a.key}]}
observe: {access_log: {path: access.log}}
`)
	c, err := Parse("x", []byte(text), "/etc/landfall", environment)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Dir, c.Mesh.TLS.CA, c.Mesh.TLS.Cert, c.Mesh.TLS.Key, c.TLS.Certificates[0].Cert, c.TLS.Certificates[0].Key, c.DNS.GeoIP, c.Observe.AccessLog.Path}
	want := []string{"/etc/landfall", "/etc/landfall/ca.pem", "/etc/landfall/certs/${NODE}.pem", "/abs/${NODE}.key", "/etc/landfall/a.pem", "/etc/a.key", "", "/etc/landfall/access.log"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if c = mustParse(t, text); c.Mesh.TLS.CA != "ca.pem" {
		t.Errorf("without a folder, %q", c.Mesh.TLS.CA)
	}
	if c, err = Parse("x", []byte(smallestFile), "/etc", nil); err != nil || c.Observe.AccessLog.Path != "stdout" {
		t.Errorf("%v %v", c, err)
	}
}

func TestPoolFor(t *testing.T) {
	c := mustParse(t, `regions: {eu: {}, us: {}}
services:
  a: {hosts: [a], pools: {eu: {origins: ["http://eu:1"]}, any: {origins: ["http://any:1"]}}}
  b: {hosts: [b], pools: {eu: {origins: ["http://eu:1"]}}}
`)
	for _, q := range []struct{ service, region, want string }{
		{"a", "eu", "http://eu:1"}, {"a", "us", "http://any:1"}, {"b", "eu", "http://eu:1"}, {"b", "us", ""}, {"c", "eu", ""},
	} {
		p, ok := c.PoolFor(q.service, q.region)
		if ok != (q.want != "") || ok && p.Origins[0] != q.want {
			t.Errorf("%+v: %v %v", q, p, ok)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(file, []byte(service("dns: {geoip: city.mmdb}\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, environment)
	if err != nil || c.Dir != dir || c.DNS.GeoIP != filepath.Join(dir, "city.mmdb") {
		t.Fatalf("%v %v", c, err)
	}

	_, err = Load(filepath.Join(dir, "nowhere.yaml"), nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "nowhere.yaml does not exist") {
		t.Errorf("absent: %v", err)
	}
	_, err = Load(dir, nil)
	if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "folder") {
		t.Errorf("folder: %v", err)
	}
	var all Errors
	if errors.As(err, &all) {
		t.Errorf("an unreadable file is %T, as if it were faulty", err)
	}

	if err := os.WriteFile(file, bytes.Repeat([]byte("#\n"), maxFile/2+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(file, nil); !errors.As(err, &all) || !strings.Contains(err.Error(), "larger than 4MiB") {
		t.Errorf("large: %v", err)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Parse("x.yaml", []byte("services: {web: {hosts: ["+strings.Repeat("[], ", 2000)+"]}}"), "", nil)
	var all Errors
	if !errors.As(err, &all) || len(all) != maxErrors+1 || !strings.Contains(all[maxErrors].Msg, "more faults") {
		t.Errorf("%d faults, the last %v", len(all), all[len(all)-1])
	}
}

// Paths in the file are relative to its folder, also those in maps.
func TestPathsOfPools(t *testing.T) {
	c, err := Parse("x", []byte(`services: {web: {hosts: ["*"], pools: {any: {file: origins.txt}}}}`), "/etc/landfall", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Services["web"].Pools["any"].File; got != "/etc/landfall/origins.txt" {
		t.Errorf("%q", got)
	}
}
