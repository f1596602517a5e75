package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"landfall/configs"

	"github.com/prometheus/client_golang/prometheus"
)

func newStore(t testing.TB, certs ...configs.Certificate) *Store {
	t.Helper()
	s, err := New(Options{TLS: configs.TLS{Certificates: certs}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStoreChoosesBySNI(t *testing.T) {
	ca, dir := newCA(t), t.TempDir()
	first := issue(t, ca, dir, "first", time.Hour, "first.example.com")
	wild := issue(t, ca, dir, "wild", time.Hour, "*.shop.example.com", "shop.example.com")
	exact := issue(t, ca, dir, "exact", time.Hour, "www.shop.example.com")
	s := newStore(t, first, wild, exact)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	tests := []struct {
		sni, want string
		has       bool
	}{
		{"first.example.com", first.Cert, true},
		{"FIRST.example.com.", first.Cert, true},
		{"shop.example.com", wild.Cert, true},
		{"any.shop.example.com", wild.Cert, true},
		{"www.shop.example.com", exact.Cert, true},
		{"a.b.shop.example.com", first.Cert, false}, // a wildcard stands for one label
		{".shop.example.com", first.Cert, false},
		{"unknown.example.org", first.Cert, false},
		{"", first.Cert, false},
	}
	for _, tt := range tests {
		got, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: tt.sni})
		if err != nil {
			t.Fatal(err)
		}
		want, err := loadPair(tt.want, strings.TrimSuffix(tt.want, ".pem")+".key")
		if err != nil {
			t.Fatal(err)
		}
		if !got.Leaf.Equal(want.Leaf) {
			t.Errorf("%q: got the certificate of %v", tt.sni, got.Leaf.DNSNames)
		}
		if has := s.Has(tt.sni); has != tt.has {
			t.Errorf("Has(%q) = %v", tt.sni, has)
		}
	}
	state, serverErr, clientErr := handshake(t, s.TLSConfig("1.3"),
		&tls.Config{RootCAs: roots, ServerName: "any.shop.example.com", NextProtos: []string{"h2"}})
	if serverErr != nil || clientErr != nil || state.NegotiatedProtocol != "h2" {
		t.Errorf("handshake: %v, %v, protocol %q", serverErr, clientErr, state.NegotiatedProtocol)
	}
	_, _, clientErr = handshake(t, s.TLSConfig("1.3"), &tls.Config{RootCAs: roots, ServerName: "shop.example.com", MaxVersion: tls.VersionTLS12})
	if clientErr == nil {
		t.Error("TLS 1.2 is accepted below min_version 1.3")
	}
	if infos := s.Infos(); len(infos) != 3 || infos[1].Source != wild.Cert || !slices.Equal(infos[1].Names, []string{"*.shop.example.com", "shop.example.com"}) {
		t.Errorf("infos: %+v", infos)
	}
}

// selfSigned writes a certificate for a name with any key.
func selfSigned(t *testing.T, dir, base, name string, key any, public any) configs.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := configs.Certificate{Cert: filepath.Join(dir, base+".pem"), Key: filepath.Join(dir, base+".key")}
	write(t, c.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, c.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	return c
}

func TestStoreChoosesWhatTheClientCanUse(t *testing.T) {
	dir := t.TempDir()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, selfSigned(t, dir, "ec", "a.test", ec, ec.Public()), selfSigned(t, dir, "rsa", "a.test", old, old.Public()))
	for _, tt := range []struct {
		suite uint16
		want  x509.PublicKeyAlgorithm
	}{
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, x509.ECDSA},
		{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, x509.RSA},
	} {
		state, serverErr, clientErr := handshake(t, s.TLSConfig(""), &tls.Config{
			ServerName: "a.test", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tt.suite},
		})
		if serverErr != nil || clientErr != nil {
			t.Fatalf("server %v, client %v", serverErr, clientErr)
		}
		if got := state.PeerCertificates[0].PublicKeyAlgorithm; got != tt.want {
			t.Errorf("got %v, want %v", got, tt.want)
		}
	}
}

func TestStorePrefersWhatHasNotExpired(t *testing.T) {
	ca, dir := newCA(t), t.TempDir()
	var logs bytes.Buffer
	s, err := New(Options{
		TLS: configs.TLS{Certificates: []configs.Certificate{
			issue(t, ca, dir, "old", -time.Hour, "a.test"), issue(t, ca, dir, "new", time.Hour, "a.test"),
		}},
		Logger: slog.New(slog.NewTextHandler(&logs, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	state, _, clientErr := handshake(t, s.TLSConfig(""), &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
	if clientErr != nil || time.Now().After(state.PeerCertificates[0].NotAfter) {
		t.Errorf("got one that expired, or %v", clientErr)
	}
	if !strings.Contains(logs.String(), "has expired") {
		t.Errorf("log: %s", logs.String())
	}
}

func TestStoreByAddressWithoutSNI(t *testing.T) {
	ca, dir := newCA(t), t.TempDir()
	first := issue(t, ca, dir, "first", time.Hour, "first.test")
	certPEM, keyPEM, err := ca.Issue(nil, []net.IP{net.IPv4(127, 0, 0, 1)}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	byIP := configs.Certificate{Cert: filepath.Join(dir, "ip.pem"), Key: filepath.Join(dir, "ip.key")}
	write(t, byIP.Cert, certPEM)
	write(t, byIP.Key, keyPEM)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	_, _, clientErr := handshake(t, newStore(t, first, byIP).TLSConfig(""), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	if clientErr != nil {
		t.Error(clientErr)
	}
}

func TestStoreHoldsNothing(t *testing.T) {
	s := newStore(t)
	if _, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.test"}); err == nil || !strings.Contains(err.Error(), "a.test") {
		t.Errorf("err: %v", err)
	}
	if s.Has("a.test") || len(s.Infos()) != 0 {
		t.Error("an empty store has something")
	}
}

func TestNewNamesEveryBadFile(t *testing.T) {
	ca, dir := newCA(t), t.TempDir()
	a, b := issue(t, ca, dir, "a", time.Hour, "a"), issue(t, ca, dir, "b", time.Hour, "b")
	write(t, filepath.Join(dir, "text"), []byte("hello"))
	write(t, filepath.Join(dir, "empty"), nil)
	write(t, filepath.Join(dir, "big"), make([]byte, maxFile+1))
	_, err := New(Options{TLS: configs.TLS{Certificates: []configs.Certificate{
		a,
		{Cert: filepath.Join(dir, "none.pem"), Key: a.Key},
		{Cert: a.Cert, Key: b.Key},
		{Cert: filepath.Join(dir, "text"), Key: filepath.Join(dir, "empty")},
		{Cert: filepath.Join(dir, "big"), Key: a.Cert},
	}}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"tls.certificates[1]", "none.pem", "no such file", "tls.certificates[2]", "b.key can't be used together",
		"not PEM", "is empty", "larger than 1 MiB"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "tls.certificates[0]") {
		t.Errorf("the error names a good pair:\n%v", err)
	}
}

func TestReload(t *testing.T) {
	ca, dir := newCA(t), t.TempDir()
	m := NewMetrics(prometheus.NewRegistry())
	a, b := issue(t, ca, dir, "a", time.Hour, "a"), issue(t, ca, dir, "b", time.Hour, "b")
	s, err := New(Options{TLS: configs.TLS{Certificates: []configs.Certificate{a, b}}, Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	before := s.Infos()
	issue(t, ca, dir, "a", 2*time.Hour, "a")
	if err := os.Remove(b.Cert); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare([]configs.Certificate{a, b}); err == nil || !strings.Contains(err.Error(), "tls.certificates[1]") {
		t.Errorf("Prepare: %v", err)
	}
	if after := s.Infos(); !reflect.DeepEqual(after, before) {
		t.Errorf("a refused reload changed something: before %+v\nafter %+v", before, after)
	}
	c := issue(t, ca, dir, "c", time.Hour, "c")
	commit, err := s.Prepare([]configs.Certificate{a, c})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s.Infos(), before) {
		t.Error("something changed before commit")
	}
	commit()
	after := s.Infos()
	if len(after) != 2 || !after[0].NotAfter.After(before[0].NotAfter) || !s.Has("c") || s.Has("b") {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	stop := run(t, s)
	eventually(t, "metrics of both", func() bool {
		got := gauges(t, m)
		return len(got) == 2 && got["a"] == float64(after[0].NotAfter.Unix())
	})

	// The next store takes the metrics over; what only the old one had goes when that stops.
	next, err := New(Options{TLS: configs.TLS{Certificates: []configs.Certificate{issue(t, ca, dir, "a", 3*time.Hour, "a")}}, Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	run(t, next)
	eventually(t, "the metric of the next store", func() bool {
		return gauges(t, m)["a"] == float64(next.Infos()[0].NotAfter.Unix())
	})
	stop()
	if got := gauges(t, m); len(got) != 1 || got["a"] != float64(next.Infos()[0].NotAfter.Unix()) {
		t.Errorf("metrics after the change: %v", got)
	}
	if !next.Has("a") || next.Has("b") {
		t.Error("the next store")
	}
}

func TestRunWarnsOncePerDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newCA(t), t.TempDir()
		var logs bytes.Buffer
		s, err := New(Options{
			TLS:    configs.TLS{Certificates: []configs.Certificate{issue(t, ca, dir, "a", 100*24*time.Hour, "a.test")}},
			Logger: slog.New(slog.NewTextHandler(&logs, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 89*24*time.Hour+12*time.Hour)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(logs.String(), "ends soon"); n != 4 {
			t.Errorf("%d warnings from the 14th to the 11th day before the end, want one a day:\n%s", n, logs.String())
		}
	})
}

// gauges is landfall_cert_not_after_seconds by name.
func gauges(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(m.notAfter)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			out[metric.GetLabel()[0].GetValue()] = metric.GetGauge().GetValue()
		}
	}
	return out
}

func FuzzFind(f *testing.F) {
	for _, s := range []string{"", ".", "a", "a.b.test", "*.b.test", "..", "A.B.TEST."} {
		f.Add(s)
	}
	h := &held{names: []string{"*.b.test", "b.test"}}
	ix := newIndex([]*held{h})
	f.Fuzz(func(t *testing.T, name string) {
		name = normal(name)
		exact, wild := ix.find(name)
		if len(exact) > 0 && name != "b.test" {
			t.Fatalf("%q matches b.test", name)
		}
		label, ok := strings.CutSuffix(name, ".b.test")
		if want := ok && label != "" && !strings.Contains(label, "."); (len(wild) > 0) != want {
			t.Fatalf("%q matches *.b.test: %v", name, len(wild) > 0)
		}
	})
}

func BenchmarkGetCertificate(b *testing.B) {
	ca, dir := newCA(b), b.TempDir()
	s := newStore(b, issue(b, ca, dir, "a", time.Hour, "*.shop.example.com"), issue(b, ca, dir, "b", time.Hour, "b.example.com"))
	hello := &tls.ClientHelloInfo{ServerName: "www.shop.example.com"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.GetCertificate(hello); err != nil {
			b.Fatal(err)
		}
	}
}
