package certs

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"
)

func TestCAIssues(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	made, err := NewCA("fleet CA", now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := LoadCA(made.CertPEM(), made.KeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := ca.Issue([]string{"eu-1", "*.example.com"}, []net.IP{net.IPv4(127, 0, 0, 1)}, now, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	for _, name := range []string{"eu-1", "www.example.com", "127.0.0.1"} {
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			opts := x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
			if _, err := pair.Leaf.Verify(opts); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if end := pair.Leaf.NotAfter; !end.Equal(now.Add(24 * time.Hour)) {
		t.Errorf("ends %v", end)
	}
	certPEM, keyPEM, err = ca.Issue([]string{"eu-1"}, nil, now, 2*caLifetime)
	if err != nil {
		t.Fatal(err)
	}
	if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil || pair.Leaf.NotAfter.After(now.Add(caLifetime)) {
		t.Errorf("outlives its CA: %v, %v", pair.Leaf.NotAfter, err)
	}
}

func TestCARefuses(t *testing.T) {
	now := time.Now()
	ca := newCA(t)
	for _, tt := range []struct {
		names    []string
		now      time.Time
		lifetime time.Duration
		want     string
	}{
		{nil, now, time.Hour, "at least one host"},
		{[]string{"a"}, now, 0, "before it begins"},
		{[]string{"a"}, now.Add(2 * caLifetime), time.Hour, "make a new one"},
	} {
		if _, _, err := ca.Issue(tt.names, nil, tt.now, tt.lifetime); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
	certPEM, keyPEM, err := ca.Issue([]string{"a"}, nil, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCA(certPEM, keyPEM); err == nil || !strings.Contains(err.Error(), "not one of a CA") {
		t.Errorf("a leaf as CA: %v", err)
	}
	if _, err := LoadCA(ca.CertPEM(), keyPEM); err == nil {
		t.Error("a CA with somebody else's key")
	}
	if _, err := LoadCA([]byte("x"), nil); err == nil {
		t.Error("not PEM")
	}
}
