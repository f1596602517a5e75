package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

const (
	// caLifetime is how long a CA made by NewCA lasts.
	caLifetime = 10 * 365 * 24 * time.Hour
	// skew is how far certificates begin in the past, for nodes whose clocks are behind.
	skew = time.Hour
)

// CA is a small certificate authority: the fleet's own, and the lab's. It issues for its caller and keeps no record. It
// is immutable and safe for concurrent use.
type CA struct {
	cert    *x509.Certificate
	key     crypto.Signer
	certPEM []byte
	keyPEM  []byte
}

// NewCA makes a CA with an ECDSA P-256 key that lasts ten years from now. name is its common name.
func NewCA(name string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of a CA: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs certificates of nodes, not of other CAs
	}
	certPEM, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return LoadCA(certPEM, keyPEM)
}

// LoadCA makes a CA of its certificate and private key in PEM.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("load the CA: %w", err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("load the CA: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !cert.IsCA {
		return nil, fmt.Errorf("load the CA: the certificate of %q is not one of a CA", cert.Subject.CommonName)
	}
	return &CA{cert: cert, key: key, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// CertPEM is the CA's certificate in PEM.
func (ca *CA) CertPEM() []byte { return append([]byte(nil), ca.certPEM...) }

// KeyPEM is the CA's private key in PEM (PKCS #8 when NewCA made it). Keep it off the nodes.
func (ca *CA) KeyPEM() []byte { return append([]byte(nil), ca.keyPEM...) }

// Issue makes a certificate and its ECDSA P-256 key, both in PEM, for servers and clients of these DNS or node names
// and addresses, of which at least one is needed. It lasts lifetime from now, but not longer than the CA.
func (ca *CA) Issue(names []string, ips []net.IP, now time.Time, lifetime time.Duration) (certPEM, keyPEM []byte, err error) {
	return ca.issue(names, ips, nil, now, lifetime)
}

// IssueNode makes a node's certificate as Issue does, that names its fleet too, in a URI: nodes of another fleet refuse it,
// though both fleets have one CA.
func (ca *CA) IssueNode(fleet, node string, ips []net.IP, now time.Time, lifetime time.Duration) (certPEM, keyPEM []byte, err error) {
	return ca.issue([]string{node}, ips, []*url.URL{{Scheme: "landfall", Path: "/" + fleet + "/" + node}}, now, lifetime)
}

func (ca *CA) issue(names []string, ips []net.IP, uris []*url.URL, now time.Time, lifetime time.Duration) (certPEM, keyPEM []byte, err error) {
	switch {
	case len(names)+len(ips) == 0:
		return nil, nil, errors.New("issue a certificate: name at least one host, node or address")
	case lifetime <= 0:
		return nil, nil, fmt.Errorf("issue a certificate: a lifetime of %v is over before it begins", lifetime)
	case !now.Before(ca.cert.NotAfter):
		return nil, nil, fmt.Errorf("issue a certificate: the CA ended on %s: make a new one", ca.cert.NotAfter.Format(time.DateOnly))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate: %w", err)
	}
	template := &x509.Certificate{
		NotBefore:   now.Add(-skew),
		NotAfter:    now.Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    names,
		IPAddresses: ips,
		URIs:        uris,
	}
	if len(names) > 0 && len(names[0]) <= 64 { // the bound of a common name (RFC 5280 appendix A)
		template.Subject.CommonName = names[0]
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	if certPEM, err = sign(template, ca.cert, key.Public(), ca.key); err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key)
	return certPEM, keyPEM, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
