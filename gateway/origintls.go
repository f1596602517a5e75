package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"landfall/configs"
)

// originProof is TLS towards a service's origins.
type originProof struct {
	config *tls.Config       // nil: the system's roots and nothing shown
	print  [sha256.Size]byte // of the files that it was made from, by which a reload sees that they changed
}

// originTLS reads the files that a pool's TLS names.
func originTLS(service string, t *configs.OriginTLS) (originProof, error) {
	var none originProof
	if t == nil {
		return none, nil
	}
	sum := sha256.New()
	read := func(key, path string) ([]byte, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("services.%s.pool.tls.%s: %w", service, key, err)
		}
		sum.Write(data) // never fails
		return data, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		data, err := read("ca", t.CA)
		if err != nil {
			return none, err
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(data) {
			return none, fmt.Errorf("services.%s.pool.tls.ca: %s holds no certificate in PEM form", service, t.CA)
		}
	}
	if t.Cert != "" {
		cert, err1 := read("cert", t.Cert)
		key, err2 := read("key", t.Key)
		if err := errors.Join(err1, err2); err != nil {
			return none, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return none, fmt.Errorf("services.%s.pool.tls: %w", service, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return originProof{c, [sha256.Size]byte(sum.Sum(nil))}, nil
}
