package certs

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"landfall/configs"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// certmagic has one rate limiter for each CA in the process, and never stops it.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"))
}

func newCA(t testing.TB) *CA {
	t.Helper()
	ca, err := NewCA("test CA", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue writes a certificate and its key to dir/base.pem and dir/base.key.
func issue(t testing.TB, ca *CA, dir, base string, lifetime time.Duration, names ...string) configs.Certificate {
	t.Helper()
	now := time.Now()
	if lifetime < 0 {
		now, lifetime = now.Add(2*lifetime), -lifetime
	}
	certPEM, keyPEM, err := ca.Issue(names, nil, now, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	c := configs.Certificate{Cert: filepath.Join(dir, base+".pem"), Key: filepath.Join(dir, base+".key")}
	write(t, c.Cert, certPEM)
	write(t, c.Key, keyPEM)
	return c
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// handshake connects a server and a client over a loopback connection and returns both their results.
func handshake(t testing.TB, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		tlsConn := tls.Server(conn, server)
		if err = tlsConn.Handshake(); err == nil {
			_, err = tlsConn.Write([]byte("x")) // a refused client learns of it when it reads
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tlsConn := tls.Client(conn, client)
	if clientErr = tlsConn.Handshake(); clientErr == nil {
		state = tlsConn.ConnectionState()
		_, clientErr = tlsConn.Read(make([]byte, 1))
	}
	conn.Close()
	return state, <-done, clientErr
}
