package gateway

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"landfall/routing/mesh"
)

func TestCertWatch(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	far := start.Add(3650 * day)
	w := certWatch{warned: map[string]time.Time{}}
	for _, c := range []struct {
		at       time.Duration
		cert, ca time.Time
		err      error
		want     string // kind and subject
		text     string
	}{
		{0, start.Add(20 * day), far, nil, "", ""},
		{6*day + time.Hour, start.Add(20 * day), far, nil, "cert.expiring n1", "ends in 335h0m0s"},
		{6*day + 2*time.Hour, start.Add(20 * day), far, nil, "", ""},
		{7*day + 2*time.Hour, start.Add(20 * day), far, nil, "cert.expiring n1", "landfall fleet cert"},
		{7*day + 3*time.Hour, start.Add(20 * day), far, errors.New("node.pem holds no certificate"), "cert.failed n1", "holds no"},
		{7*day + 4*time.Hour, start.Add(20 * day), far, errors.New("node.pem holds no certificate"), "", ""},
		{21 * day, start.Add(20 * day), far, nil, "cert.expiring n1", "the other nodes refuse this one"},
		{21*day + time.Minute, start.Add(400 * day), far, nil, "cert.renewed n1", "2027-12-06"},
		{386*day + time.Hour, start.Add(400 * day), start.Add(390 * day), nil, "cert.expiring n1, cert.expiring ca", "mesh.tls.ca hold both"},
	} {
		var got, text []string
		for _, e := range w.look(start.Add(c.at), "n1", c.cert, c.ca, c.err) {
			got, text = append(got, e[0]+" "+e[1]), append(text, e[2])
		}
		if strings.Join(got, ", ") != c.want || !strings.Contains(strings.Join(text, " "), c.text) {
			t.Errorf("after %s: %v %v, want %s (%s)", c.at, got, text, c.want, c.text)
		}
	}
}

// A node warns of its own certificate and shows its end; those of the test last an hour.
func TestMeshCertificateIsWatched(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 85)
	eventually(t, "a warning", func() bool { return f.nodes["eu"].hasEvent("cert.expiring eu-1: ends in ") })
	metrics, err := f.nodes["eu"].admin.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mesh node", "mesh ca"} {
		if !strings.Contains(string(metrics), `landfall_cert_not_after_seconds{name="`+name+`"} `) {
			t.Errorf("no metric of the %s", name)
		}
	}
}

// A node's certificate is replaced in place while it runs: its peers meet the new one on its peer listener, and no
// process is restarted.
func TestMeshCertificateIsRenewedWithoutARestart(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 84)
	eu := f.nodes["eu"].n
	pair, err := tls.LoadX509KeyPair(f.site.file("us-1.pem"), f.site.file("us-1.key"))
	if err != nil {
		t.Fatal(err)
	}
	presented := func() (end time.Time) {
		d := tls.Dialer{Config: &tls.Config{RootCAs: f.site.trust, ServerName: "eu-1", Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}}
		c, err := d.DialContext(t.Context(), "tcp", f.at("eu", 4))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.(*tls.Conn).ConnectionState().PeerCertificates[0].NotAfter
	}
	before := presented()
	boot := eu.mesh.Members()[slices.IndexFunc(eu.mesh.Members(), func(m mesh.Member) bool { return m.Self })].Boot
	cert, key, err := f.site.ca.Issue([]string{"eu-1"}, nil, time.Now(), 30*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f.site.file("eu-1.pem"), string(cert))
	write(t, f.site.file("eu-1.key"), string(key))
	eventually(t, "the renewal is told", func() bool { return f.nodes["eu"].hasEvent("cert.renewed eu-1: ") })
	eventually(t, "peers meet the new certificate", func() bool { return presented().After(before.Add(24 * time.Hour)) })
	for _, r := range []string{"ap", "us"} {
		if f.nodes[r].hasEvent("node.restarted eu-1") {
			t.Errorf("%s saw eu-1 restart: %v", r, f.nodes[r].events())
		}
		eventually(t, r+" reaches the same process", func() bool {
			all := f.nodes[r].n.mesh.Members()
			i := slices.IndexFunc(all, func(m mesh.Member) bool { return m.Name == "eu-1" })
			return i >= 0 && all[i].Reachable && all[i].Boot == boot
		})
	}
}
