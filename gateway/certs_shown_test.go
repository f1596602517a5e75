package gateway

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"landfall/configs"
	"landfall/gateway/certs"
)

// TestCertsShowTheNodesOwn holds that the certificate of the peer channel, which parts a node from its fleet when it
// runs out, is shown with the others.
func TestCertsShowTheNodesOwn(t *testing.T) {
	now := time.Now()
	ca, err := certs.NewCA("test fleet", now)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue([]string{"n1"}, []net.IP{net.IPv4(127, 0, 0, 1)}, now, 90*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := configs.MeshTLS{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "n1.pem"), Key: filepath.Join(dir, "n1.key")}
	if err := errors.Join(os.WriteFile(files.CA, ca.CertPEM(), 0o600), os.WriteFile(files.Cert, cert, 0o600), os.WriteFile(files.Key, key, 0o600)); err != nil {
		t.Fatal(err)
	}
	creds, err := certs.PeerTLS(files, "n1")
	if err != nil {
		t.Fatal(err)
	}
	shown := backend{&Node{creds: creds}}.Certs()
	if len(shown) != 1 || shown[0].Names[0] != "n1" || shown[0].Source != "file" {
		t.Fatalf("shown: %+v, want the certificate of n1 by file", shown)
	}
	if shown[0].Issuer != "test fleet" || shown[0].NotBefore.After(now) || shown[0].Error != "" {
		t.Errorf("issuer %q, from %s, error %q", shown[0].Issuer, shown[0].NotBefore, shown[0].Error)
	}
	if left := shown[0].NotAfter.Sub(now); left < 89*24*time.Hour || left > 91*24*time.Hour {
		t.Errorf("it ends in %s, want 90 days", left)
	}
}
