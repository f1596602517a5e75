package lab

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"landfall/configs"
	"landfall/routing/geo"
)

func planned(t *testing.T, net, regions, nodes int) Fleet {
	t.Helper()
	return plan(net, regions, nodes, Latency{}.between)
}

func TestPlanHasUniqueNamesAndAddresses(t *testing.T) {
	f := planned(t, 7, MaxRegions, MaxNodes)
	seen := map[string]bool{}
	once := func(what string) {
		t.Helper()
		if seen[what] {
			t.Errorf("%s is there twice", what)
		}
		seen[what] = true
	}
	prefix := netip.MustParsePrefix("127.7.0.0/16")
	for _, r := range f.Regions {
		once(r.Name)
		if !r.Prefix.Contains(r.Client) {
			t.Errorf("%s: client %s is not of %s", r.Name, r.Client, r.Prefix)
		}
		for _, n := range r.Nodes {
			once(n.Name)
			once(n.Addr.String())
			if !prefix.Contains(n.Addr) {
				t.Errorf("%s is not of %s", n.Addr, prefix)
			}
		}
		for _, o := range r.Origins {
			once(o)
			once(strings.TrimSuffix(strings.TrimPrefix(o, "http://"), fmt.Sprintf(":%d", originPort)))
		}
		for _, q := range f.Regions {
			if q.Name != r.Name && (q.Prefix.Overlaps(r.Prefix) || q.RTT[r.Name] != r.RTT[q.Name] || r.RTT[q.Name] < 1) {
				t.Errorf("%s and %s: prefixes %s and %s, round trips %d and %d ms", r.Name, q.Name, r.Prefix, q.Prefix, r.RTT[q.Name], q.RTT[r.Name])
			}
		}
	}
	if once(f.Admin); len(f.Regions) != MaxRegions || len(f.Regions[0].Nodes) != MaxNodes {
		t.Errorf("the plan has %d regions with %d nodes", len(f.Regions), len(f.Regions[0].Nodes))
	}
}

func TestFilesAreWhatNodesRead(t *testing.T) {
	now := time.Now()
	for _, size := range [][2]int{{1, 1}, {3, 1}, {MaxRegions, MaxNodes}} {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) {
			f := planned(t, 0, size[0], size[1])
			f.Dir = t.TempDir()
			key, err := writeFiles(&f, now)
			if err != nil {
				t.Fatal(err)
			}
			c, err := configs.Load(filepath.Join(f.Dir, "fleet.yaml"), func(name string) (string, bool) { return key, name == "LANDFALL_MESH_KEY" })
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Regions) != size[0] || len(c.Services["shop"].Pools) != size[0] || c.DNS.Zones[Zone].TTL.D() != TTL || c.Shutdown.DNSWait.D() != dnsWait {
				t.Errorf("the config says something else than the plan: %+v", c)
			}
			checkPlaces(t, f)
			checkCertificates(t, f, now)
		})
	}
}

func checkPlaces(t *testing.T, f Fleet) {
	t.Helper()
	db, err := geo.Open(filepath.Join(f.Dir, "places.mmdb"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, r := range f.Regions {
		place, ok := db.Lookup(r.Client)
		if !ok || place.Country != r.place.country || math.Abs(place.Point.Lat-r.place.lat) > 0.01 || math.Abs(place.Point.Lon-r.place.lon) > 0.01 {
			t.Errorf("a client of %s is at %+v (%t)", r.Name, place, ok)
		}
	}
}

func checkCertificates(t *testing.T, f Fleet, now time.Time) {
	t.Helper()
	web, err1 := f.Roots()
	fleet, err2 := Fleet{CA: filepath.Join(f.Dir, "fleet-ca.pem")}.Roots()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	check := func(roots, others *x509.CertPool, file, name string) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(f.Dir, file))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: others, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
			t.Errorf("%s is of both authorities: a web server must not pass for a node", file)
		}
	}
	check(web, fleet, "lab.pem", f.Host)
	for _, r := range f.Regions {
		for _, n := range r.Nodes {
			check(fleet, web, n.Name+".pem", n.Name)
			check(fleet, web, n.Name+".pem", n.Addr.String())
		}
	}
	for _, file := range []string{"lab.key", f.Regions[0].Nodes[0].Name + ".key"} {
		if info, err := os.Stat(filepath.Join(f.Dir, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %v %v", file, info.Mode(), err)
		}
	}
}

func TestRootsTellWhatIsWrong(t *testing.T) {
	f := Fleet{CA: filepath.Join(t.TempDir(), "ca.pem")}
	if _, err := f.Roots(); err == nil || !strings.Contains(err.Error(), "read the lab's CA") {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(f.CA, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Roots(); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("empty: %v", err)
	}
}

func TestOptionsOutOfBounds(t *testing.T) {
	good := Options{Regions: 3, Nodes: 1}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no region": func(o *Options) { o.Regions = 0 }, "too many regions": func(o *Options) { o.Regions = MaxRegions + 1 },
		"no node": func(o *Options) { o.Nodes = 0 }, "too many nodes": func(o *Options) { o.Nodes = MaxNodes + 1 },
		"net": func(o *Options) { o.Net = MaxNet + 1 }, "negative net": func(o *Options) { o.Net = -1 },
		"traffic": func(o *Options) { o.Traffic = MaxTraffic + 1 }, "negative traffic": func(o *Options) { o.Traffic = -1 },
		"traffic that is no number": func(o *Options) { o.Traffic = math.NaN() },
	} {
		o := good
		change(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), "asked for") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Start(t.Context(), o); err == nil {
			t.Errorf("%s: a lab started", name)
		}
	}
}
