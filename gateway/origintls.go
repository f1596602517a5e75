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

// originTLS is TLS towards a service's origins, and a print of the files it was made from, by which a reload sees that
// they changed.
func originTLS(service string, t *configs.OriginTLS) (*tls.Config, [sha256.Size]byte, error) {
	var print [sha256.Size]byte
	if t == nil {
		return nil, print, nil
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
			return nil, print, err
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, print, fmt.Errorf("services.%s.pool.tls.ca: %s holds no certificate in PEM form", service, t.CA)
		}
	}
	if t.Cert != "" {
		cert, err1 := read("cert", t.Cert)
		key, err2 := read("key", t.Key)
		if err := errors.Join(err1, err2); err != nil {
			return nil, print, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, print, fmt.Errorf("services.%s.pool.tls: %w", service, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, [sha256.Size]byte(sum.Sum(nil)), nil
}
