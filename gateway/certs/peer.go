package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"landfall/configs"
)

// peerCheckEvery is how often, at most, a handshake looks whether the files have changed.
const peerCheckEvery = 10 * time.Second

// PeerCreds are a node's credentials on the peer channel: its certificate and the CA that everybody's must be from. The
// files are read again when they change: a handshake looks, at most every 10 s, so that a certificate (and the CA,
// which may be several in one file while it is replaced) is renewed without a restart. Files that can't be used leave
// what was loaded before: see Err. Safe for concurrent use; it owns no goroutine.
type PeerCreds struct {
	node          string
	ca, cert, key string
	started       time.Time
	checked       atomic.Int64 // since started
	state         atomic.Pointer[peerState]
	failure       atomic.Pointer[error]
}

// peerState is what was loaded. It is immutable.
type peerState struct {
	pair   tls.Certificate
	roots  *x509.CertPool
	caEnd  time.Time // when the last of the CA's certificates ends
	server *tls.Config
	stamps [3]stamp // of the files, taken before they were read
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// PeerTLS loads the credentials of the node of this name; ${NODE} in the paths is replaced by it. The certificate must
// be for that name, since that is what the others check, and be from the CA.
func PeerTLS(m configs.MeshTLS, node string) (*PeerCreds, error) {
	path := func(p string) string { return strings.ReplaceAll(p, "${NODE}", node) }
	p := &PeerCreds{node: node, ca: path(m.CA), cert: path(m.Cert), key: path(m.Key), started: time.Now()}
	state, err := p.load()
	if err != nil {
		return nil, fmt.Errorf("mesh.tls: %w", err)
	}
	p.state.Store(state)
	return p, nil
}

func (p *PeerCreds) load() (*peerState, error) {
	s := &peerState{stamps: p.stamps(), roots: x509.NewCertPool()}
	ca, caErr := readPEM(p.ca, "fleet's CA certificate")
	pair, pairErr := loadPair(p.cert, p.key)
	err := errors.Join(caErr, pairErr)
	if err != nil {
		return nil, err
	}
	if !s.roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no CA certificate", p.ca)
	}
	if _, err = p.verifyOwn(pair, s.roots); err != nil {
		return nil, err
	}
	s.pair, s.caEnd = pair, lastEnd(ca)
	s.server = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2"},
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    s.roots,
	}
	return s, nil
}

// lastEnd is when the last of the certificates in a PEM file ends: while a CA is replaced the file holds two.
func lastEnd(pemBytes []byte) (end time.Time) {
	for {
		block, rest := pem.Decode(pemBytes)
		if block == nil {
			return end
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && cert.NotAfter.After(end) {
			end = cert.NotAfter
		}
		pemBytes = rest
	}
}

// Ends are when the certificate in use and the fleet's CA end. It looks whether the files have changed.
func (p *PeerCreds) Ends() (cert, ca time.Time) {
	s := p.current()
	return s.pair.Leaf.NotAfter, s.caEnd
}

// verifyOwn checks this node's own certificate as the other nodes will. Being out of its time is no error: that must
// not keep a node from serving its clients, only its peers will refuse it.
func (p *PeerCreds) verifyOwn(pair tls.Certificate, roots *x509.CertPool) (expiry, err error) {
	var chain []*x509.Certificate
	for _, der := range pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: its chain: %w", p.cert, err)
		}
		chain = append(chain, cert)
	}
	err = verify(pair.Leaf, chain, roots, p.node)
	var invalid x509.CertificateInvalidError
	if err != nil {
		err = fmt.Errorf("certificate %s is not good for node %q: %w", p.cert, p.node, err)
	}
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return err, nil
	}
	return nil, err
}

func (p *PeerCreds) stamps() (stamps [3]stamp) {
	for i, path := range [...]string{p.ca, p.cert, p.key} {
		if info, err := os.Stat(path); err == nil {
			stamps[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

// current is what to use for a handshake now.
func (p *PeerCreds) current() *peerState {
	now, last := int64(time.Since(p.started)), p.checked.Load()
	if now-last >= int64(peerCheckEvery) && p.checked.CompareAndSwap(last, now) {
		if p.stamps() != p.state.Load().stamps {
			state, err := p.load()
			if err == nil {
				p.state.Store(state)
				p.failure.Store(nil)
			} else {
				p.failure.Store(&err)
			}
		}
	}
	return p.state.Load()
}

// Err tells why the files as they are now can't be used, while what was loaded before still is, or that the certificate
// in use is out of its time. nil: all is well.
func (p *PeerCreds) Err() error {
	if err := p.failure.Load(); err != nil {
		return *err
	}
	state := p.current()
	expiry, _ := p.verifyOwn(state.pair, state.roots)
	return expiry
}

// Info describes the certificate in use.
func (p *PeerCreds) Info() Info {
	h := newHeld(p.state.Load().pair, p.cert)
	return Info{Names: h.names, Issuer: h.leaf().Issuer.CommonName, NotBefore: h.leaf().NotBefore, NotAfter: h.leaf().NotAfter, Source: h.source}
}

// Server is the configuration of the peer listener: TLS 1.3, HTTP/2, and a certificate of the fleet's CA required of
// the client. The client's node name is in its certificate's DNS names.
func (p *PeerCreds) Server() *tls.Config {
	c := p.current().server.Clone()
	c.Certificates = nil
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &p.current().pair, nil }
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return p.current().server, nil }
	return c
}

// Client is the configuration for connecting to another node: clone it and set ServerName to the node's name, which the
// server's certificate must carry. Without a ServerName the handshake fails.
func (p *PeerCreds) Client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &p.current().pair, nil
		},
		// crypto/tls verifies against a RootCAs that can't change. VerifyConnection does the same checks, in every
		// handshake, against the CA as it is in its file.
		InsecureSkipVerify: true,
		VerifyConnection:   p.verifyServer,
	}
}

func (p *PeerCreds) verifyServer(cs tls.ConnectionState) error {
	if cs.ServerName == "" {
		return errors.New("connect to a node: no node name was given to check its certificate for")
	}
	if len(cs.PeerCertificates) == 0 {
		return fmt.Errorf("connect to node %q: it showed no certificate", cs.ServerName)
	}
	err := verify(cs.PeerCertificates[0], cs.PeerCertificates[1:], p.current().roots, cs.ServerName)
	if err != nil {
		return fmt.Errorf("connect to node %q: %w", cs.ServerName, err)
	}
	return nil
}

func verify(leaf *x509.Certificate, chain []*x509.Certificate, roots *x509.CertPool, name string) error {
	opts := x509.VerifyOptions{
		Roots:         roots,
		Intermediates: x509.NewCertPool(),
		DNSName:       name,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, cert := range chain {
		opts.Intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(opts)
	return err
}
