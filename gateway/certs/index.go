package certs

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"time"
)

// held is a certificate in hand. It is immutable.
type held struct {
	tls    tls.Certificate // with Leaf
	names  []string        // lower case: DNS names, then addresses
	source string          // the file it came from, or "acme"
}

func newHeld(pair tls.Certificate, source string) *held {
	h := &held{tls: pair, source: source}
	for _, name := range pair.Leaf.DNSNames {
		h.names = append(h.names, normal(name))
	}
	for _, ip := range pair.Leaf.IPAddresses {
		h.names = append(h.names, ip.String())
	}
	return h
}

func (h *held) leaf() *x509.Certificate { return h.tls.Leaf }

// name is what metrics and logs call the certificate.
func (h *held) name() string {
	if len(h.names) > 0 {
		return h.names[0]
	}
	return h.source
}

// index finds certificates by name. It is immutable.
type index struct {
	all   []*held // files in the order of the config, then ACME in the order of the hosts
	exact map[string][]*held
	wild  map[string][]*held // by what follows "*."
}

func newIndex(all []*held) *index {
	ix := &index{all: all, exact: map[string][]*held{}, wild: map[string][]*held{}}
	for _, h := range all {
		for _, name := range h.names {
			if suffix, ok := strings.CutPrefix(name, "*."); ok {
				ix.wild[suffix] = append(ix.wild[suffix], h)
			} else {
				ix.exact[name] = append(ix.exact[name], h)
			}
		}
	}
	return ix
}

// find returns the certificates for a normal name: the exact ones, then the wildcards, which stand for exactly one
// label (RFC 9525 section 6.3).
func (ix *index) find(name string) (exact, wild []*held) {
	if first, suffix, ok := strings.Cut(name, "."); ok && first != "" {
		wild = ix.wild[suffix]
	}
	return ix.exact[name], wild
}

// pick chooses for a handshake. Among several for the name it is the first that the client can use and that is within
// its time, so that an RSA and an ECDSA certificate can stand side by side and a fresh one beats an expired one.
// Without SNI it goes by the address that the client connected to. nil: none is held at all.
func (ix *index) pick(hello *tls.ClientHelloInfo, now time.Time) *held {
	name := normal(hello.ServerName)
	if name == "" && hello.Conn != nil {
		name = hostOf(hello.Conn.LocalAddr())
	}
	exact, wild := ix.find(name)
	switch {
	case len(exact) == 1 && len(wild) == 0:
		return exact[0]
	case len(exact) == 0 && len(wild) == 1:
		return wild[0]
	case len(exact)+len(wild) > 0:
		return best(hello, now, exact, wild)
	case len(ix.all) > 0:
		return ix.all[0]
	}
	return nil
}

func best(hello *tls.ClientHelloInfo, now time.Time, lists ...[]*held) *held {
	var first, usable *held
	for _, list := range lists {
		for _, h := range list {
			if first == nil {
				first = h
			}
			if hello.SupportsCertificate(&h.tls) != nil {
				continue
			}
			if now.Before(h.leaf().NotAfter) && !now.Before(h.leaf().NotBefore) {
				return h
			}
			if usable == nil {
				usable = h
			}
		}
	}
	if usable != nil {
		return usable
	}
	return first
}
