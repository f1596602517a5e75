package lab

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"landfall/gateway/certs"
)

// certLifetime is how long a lab's certificates hold: longer than any lab runs.
const certLifetime = 30 * 24 * time.Hour

// writeFiles puts all that the nodes read into the lab's folder and returns the mesh key.
func writeFiles(f *Fleet, now time.Time) (meshKey string, err error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("make the mesh key: %w", err)
	}
	write := func(name string, data []byte) error {
		if err := os.WriteFile(filepath.Join(f.Dir, name), data, 0o600); err != nil {
			return fmt.Errorf("write the lab's files: %w", err)
		}
		return nil
	}
	// Two authorities: whoever holds a certificate of the fleet's is a node, and the lab's web server is not.
	web, err1 := certs.NewCA("Landfall lab", now)
	fleet, err2 := certs.NewCA("Landfall lab fleet", now)
	if err := errors.Join(err1, err2); err != nil {
		return "", fmt.Errorf("make the lab's certificate authorities: %w", err)
	}
	issue := func(ca *certs.CA, file string, names []string, ips []net.IP) error {
		cert, key, err := ca.Issue(names, ips, now, certLifetime)
		if err != nil {
			return fmt.Errorf("issue the certificate of %s: %w", file, err)
		}
		return errors.Join(write(file+".pem", cert), write(file+".key", key))
	}
	errs := []error{
		write("ca.pem", web.CertPEM()), write("fleet-ca.pem", fleet.CertPEM()), write("fleet.yaml", []byte(configFor(*f))),
		issue(web, "lab", []string{f.Host, f.Zone, "*." + f.Zone}, nil),
	}
	for _, r := range f.Regions {
		for _, n := range r.Nodes {
			errs = append(errs, issue(fleet, n.Name, []string{n.Name}, []net.IP{n.Addr.AsSlice()}))
		}
	}
	errs = append(errs, writePlaces(filepath.Join(f.Dir, "places.mmdb"), f.Regions))
	f.CA = filepath.Join(f.Dir, "ca.pem")
	return base64.StdEncoding.EncodeToString(key), errors.Join(errs...)
}

// writePlaces writes a MaxMind database that puts each region's clients where the region is.
func writePlaces(path string, regions []Region) error {
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType: "Landfall-Lab-City", RecordSize: 24, IncludeReservedNetworks: true,
	})
	if err != nil {
		return fmt.Errorf("make the lab's map of places: %w", err)
	}
	for _, r := range regions {
		record := mmdbtype.Map{
			"country":  mmdbtype.Map{"iso_code": mmdbtype.String(r.place.country)},
			"location": mmdbtype.Map{"latitude": mmdbtype.Float64(r.place.lat), "longitude": mmdbtype.Float64(r.place.lon)},
		}
		if err := errors.Join(tree.Insert(ipNet(r.Prefix), record), tree.Insert(ipNet(r.Crowd), record)); err != nil {
			return fmt.Errorf("make the lab's map of places: %w", err)
		}
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the lab's map of places: %w", err)
	}
	_, err = tree.WriteTo(file)
	return errors.Join(err, file.Close())
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
