package certs

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"landfall/configs"
)

// peerFiles lays out what a fleet has: ca.pem, and NODE.pem and NODE.key for each node.
func peerFiles(t *testing.T, ca *CA, nodes ...string) configs.MeshTLS {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.pem"), ca.CertPEM())
	for _, node := range nodes {
		issue(t, ca, dir, node, time.Hour, node)
	}
	return configs.MeshTLS{
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "${NODE}.pem"), Key: filepath.Join(dir, "${NODE}.key"),
	}
}

func peer(t *testing.T, m configs.MeshTLS, node string) *PeerCreds {
	t.Helper()
	p, err := PeerTLS(m, node)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func to(p *PeerCreds, node string) *tls.Config {
	c := p.Client().Clone()
	c.ServerName = node
	return c
}

func TestPeers(t *testing.T) {
	m := peerFiles(t, newCA(t), "eu-1", "us-1")
	eu, us := peer(t, m, "eu-1"), peer(t, m, "us-1")
	state, serverErr, clientErr := handshake(t, eu.Server(), to(us, "eu-1"))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("server: %v, client: %v", serverErr, clientErr)
	}
	if state.NegotiatedProtocol != "h2" || state.Version != tls.VersionTLS13 {
		t.Errorf("protocol %q, version %x", state.NegotiatedProtocol, state.Version)
	}
	if info := eu.Info(); len(info.Names) != 1 || info.Names[0] != "eu-1" || eu.Err() != nil {
		t.Errorf("info %+v, err %v", info, eu.Err())
	}
}

func TestPeersRefuse(t *testing.T) {
	m := peerFiles(t, newCA(t), "eu-1", "us-1")
	eu, us := peer(t, m, "eu-1"), peer(t, m, "us-1")
	stranger := peer(t, peerFiles(t, newCA(t), "us-1", "eu-1"), "us-1")
	anonymous := to(us, "eu-1")
	anonymous.GetClientCertificate = nil
	tests := []struct {
		name           string
		server, client *tls.Config
		byServer       bool
	}{
		{"another node than was asked for", eu.Server(), to(us, "us-1"), false},
		{"no name asked for", eu.Server(), to(us, ""), false},
		{"server of another fleet", stranger.Server(), to(us, "us-1"), false},
		{"client of another fleet", eu.Server(), func() *tls.Config {
			c := to(stranger, "eu-1")
			c.VerifyConnection = nil // the server must refuse by itself
			return c
		}(), true},
		{"client without certificate", eu.Server(), anonymous, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, serverErr, clientErr := handshake(t, tt.server, tt.client)
			if clientErr == nil {
				t.Error("the client is let in")
			}
			if tt.byServer && serverErr == nil {
				t.Error("the server lets it in")
			}
		})
	}
}

func TestPeerTLSErrors(t *testing.T) {
	ca := newCA(t)
	good := peerFiles(t, ca, "eu-1")
	dir := filepath.Dir(good.CA)
	issue(t, newCA(t), dir, "foreign", time.Hour, "foreign")
	issue(t, ca, dir, "wrongname", time.Hour, "eu-1")
	tests := []struct {
		name, node, want string
		m                configs.MeshTLS
	}{
		{"missing", "eu-2", "eu-2.pem", good},
		{"another CA's", "foreign", "not good for node", good},
		{"another node's", "wrongname", "not good for node", good},
		{"CA that is no certificate", "eu-1", "holds no CA certificate", configs.MeshTLS{CA: filepath.Join(dir, "eu-1.key"), Cert: good.Cert, Key: good.Key}},
		{"nothing configured", "eu-1", "is named", configs.MeshTLS{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := PeerTLS(tt.m, tt.node); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPeerExpiredStarts(t *testing.T) {
	ca := newCA(t)
	m := peerFiles(t, ca, "us-1")
	issue(t, ca, filepath.Dir(m.CA), "eu-1", -time.Hour, "eu-1")
	eu := peer(t, m, "eu-1")
	if err := eu.Err(); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("Err: %v", err)
	}
	if _, _, err := handshake(t, eu.Server(), to(peer(t, m, "us-1"), "eu-1")); err == nil {
		t.Error("a peer accepts an expired certificate")
	}
}

// pass lets the time go by after which a handshake looks at the files again.
func pass(creds ...*PeerCreds) {
	for _, p := range creds {
		p.started = p.started.Add(-2 * peerCheckEvery)
	}
}

func TestPeerReload(t *testing.T) {
	ca := newCA(t)
	m := peerFiles(t, ca, "eu-1", "us-1")
	eu, us := peer(t, m, "eu-1"), peer(t, m, "us-1")
	server, client := eu.Server(), to(us, "eu-1")
	dir := filepath.Dir(m.CA)
	before := eu.Info().NotAfter

	// A file that is broken leaves what was loaded.
	write(t, filepath.Join(dir, "eu-1.pem"), []byte("half a fi"))
	pass(eu, us)
	if _, _, err := handshake(t, server, client); err != nil {
		t.Fatalf("with a broken file: %v", err)
	}
	if eu.Err() == nil || !eu.Info().NotAfter.Equal(before) {
		t.Errorf("err %v, not after %v", eu.Err(), eu.Info().NotAfter)
	}

	// So does one for another node.
	issue(t, ca, dir, "eu-1", 2*time.Hour, "us-9")
	pass(eu, us)
	if eu.current(); eu.Err() == nil {
		t.Error("a certificate for another node is taken")
	}

	// A new CA and new certificates from it take effect in the configurations that were handed out.
	next := newCA(t)
	write(t, m.CA, next.CertPEM())
	issue(t, next, dir, "eu-1", 3*time.Hour, "eu-1")
	issue(t, next, dir, "us-1", 3*time.Hour, "us-1")
	touch(t, dir)
	pass(eu, us)
	if _, serverErr, err := handshake(t, server, client); err != nil || serverErr != nil {
		t.Fatalf("with the new CA: client %v, server %v", err, serverErr)
	}
	if eu.Err() != nil || eu.Info().NotAfter.Equal(before) {
		t.Errorf("err %v, not after %v", eu.Err(), eu.Info().NotAfter)
	}
	if _, _, err := handshake(t, server, to(peer(t, peerFiles(t, ca, "us-1"), "us-1"), "eu-1")); err == nil {
		t.Error("the old CA is still trusted")
	}
}

// touch moves the times of the files on, as coarse file systems could give two writes the same.
func touch(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Minute)
	for _, f := range files {
		if err := os.Chtimes(filepath.Join(dir, f.Name()), later, later); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPeerLooksAtMostEveryTenSeconds(t *testing.T) {
	ca := newCA(t)
	m := peerFiles(t, ca, "eu-1")
	eu := peer(t, m, "eu-1")
	before := eu.Info().NotAfter
	issue(t, ca, filepath.Dir(m.CA), "eu-1", 5*time.Hour, "eu-1")
	touch(t, filepath.Dir(m.CA))
	if eu.current(); !eu.Info().NotAfter.Equal(before) {
		t.Error("the files were read right away")
	}
	pass(eu)
	if eu.current(); eu.Info().NotAfter.Equal(before) {
		t.Error("the files were not read")
	}
}

func BenchmarkPeerHandshake(b *testing.B) {
	ca := newCA(b)
	dir := b.TempDir()
	write(b, filepath.Join(dir, "ca.pem"), ca.CertPEM())
	issue(b, ca, dir, "eu-1", time.Hour, "eu-1")
	p, err := PeerTLS(configs.MeshTLS{CA: dir + "/ca.pem", Cert: dir + "/${NODE}.pem", Key: dir + "/${NODE}.key"}, "eu-1")
	if err != nil {
		b.Fatal(err)
	}
	server, client := p.Server(), to(p, "eu-1")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := handshake(b, server, client); err != nil {
			b.Fatal(err)
		}
	}
}
