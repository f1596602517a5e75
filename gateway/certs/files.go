package certs

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// maxFile bounds what is read of a PEM file, in bytes: far above any chain.
const maxFile = 1 << 20

// loadPair loads a certificate chain and its key from PEM files.
func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	certPEM, certErr := readPEM(certFile, "certificate")
	keyPEM, keyErr := readPEM(keyFile, "private key")
	if err := errors.Join(certErr, keyErr); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := parsePair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s and key %s can't be used together: %w", certFile, keyFile, err)
	}
	return pair, nil
}

func parsePair(certPEM, keyPEM []byte) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err == nil && pair.Leaf == nil {
		err = errors.New("the certificate was not parsed") // only with GODEBUG=x509keypairleaf=0
	}
	return pair, err
}

// readPEM reads a file that must hold PEM. what names its content in errors.
func readPEM(path, what string) ([]byte, error) {
	if path == "" {
		return nil, fmt.Errorf("no %s file is named", what)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", what, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the %s: %w", what, err)
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s %s is larger than 1 MiB: it is not what it should be", what, path)
	}
	if block, _ := pem.Decode(data); block == nil {
		if len(bytes.TrimSpace(data)) == 0 {
			return nil, fmt.Errorf("%s %s is empty", what, path)
		}
		return nil, fmt.Errorf("%s %s is not PEM: it needs a -----BEGIN line", what, path)
	}
	return data, nil
}

// normal is the form in which names are compared.
func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// hostOf is the address without its port, or "".
func hostOf(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return ""
	}
	host, _, _ = strings.Cut(host, "%") // the zone of a link-local address
	return host
}
