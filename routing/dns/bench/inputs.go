// Command bench writes what run.sh beside it measures with: queries from many client subnets, and a geography that places
// those clients, the same for every server.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	mdns "github.com/miekg/dns"
)

// places are the countries that clients come from, each beside one of the regions.
var places = []struct {
	continent, country string
	lat, lon           float64
}{{"EU", "IE", 53.3, -6.3}, {"NA", "US", 39.0, -77.5}, {"AS", "SG", 1.4, 104.0}}

func main() {
	dir := flag.String("dir", ".", "folder to write to")
	count := flag.Int("queries", 50_000, "queries, each from another /24")
	name := flag.String("name", "www.bench.test.", "name that is asked for")
	flag.Parse()
	for _, do := range []func() error{
		func() error { return queries(filepath.Join(*dir, "plain"), *name, *count, false) },
		func() error { return queries(filepath.Join(*dir, "signed"), *name, *count, true) },
		func() error { return geography(filepath.Join(*dir, "places.mmdb")) },
	} {
		if err := do(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
}

// subnet is the i-th client's: in 64.0.0.0/3, where the blocks of a /16 take turns between the places.
func subnet(r *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{64 + byte(r.IntN(32)), byte(r.IntN(256)), byte(r.IntN(256)), 0})
}

// queries writes messages with their length before each, as dnsperf -B reads them.
func queries(file, name string, count int, do bool) error {
	r := rand.New(rand.NewPCG(1, 2))
	var out []byte
	for range count {
		m := new(mdns.Msg).SetQuestion(name, mdns.TypeA)
		m.RecursionDesired = false
		m.SetEdns0(1232, do)
		m.IsEdns0().Option = []mdns.EDNS0{&mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: subnet(r).AsSlice()}}
		b, err := m.Pack()
		if err != nil {
			return err
		}
		out = binary.BigEndian.AppendUint16(out, uint16(len(b)))
		out = append(out, b...)
	}
	return os.WriteFile(file, out, 0o600)
}

// geography writes a database of cities.
func geography(file string) error {
	db, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-City", RecordSize: 24})
	if err != nil {
		return err
	}
	for i := range 32 * 256 {
		p := places[i%len(places)]
		_, block, err := net.ParseCIDR(fmt.Sprintf("%d.%d.0.0/16", 64+i/256, i%256))
		if err != nil {
			return err
		}
		if err := db.Insert(block, mmdbtype.Map{
			"continent": mmdbtype.Map{"code": mmdbtype.String(p.continent)},
			"country":   mmdbtype.Map{"iso_code": mmdbtype.String(p.country)},
			"location":  mmdbtype.Map{"latitude": mmdbtype.Float64(p.lat), "longitude": mmdbtype.Float64(p.lon)},
		}); err != nil {
			return err
		}
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := db.WriteTo(f); err != nil {
		return err
	}
	return f.Close()
}
