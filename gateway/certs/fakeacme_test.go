package certs

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeACME is a CA that speaks enough of RFC 8555 to be ordered from. It validates challenges for real, against the
// address of a listener of ours, but does not check signatures of requests.
type fakeACME struct {
	t      *testing.T
	ca     *CA
	server *httptest.Server
	target string // host:port where every name is reached

	mu       sync.Mutex
	broken   bool // answer everything with 500
	lifetime time.Duration
	thumb    string // of the account's key
	hosts    []string
	certs    [][]byte
	valid    map[int]bool
	requests int
}

func newFakeACME(t *testing.T) *fakeACME {
	f := &fakeACME{t: t, ca: newCA(t), lifetime: 90 * 24 * time.Hour, valid: map[int]bool{}}
	f.server = httptest.NewTLSServer(f)
	t.Cleanup(f.server.Close)
	return f
}

// root is the CA of the directory's own certificate, in PEM.
func (f *fakeACME) root() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})
}

func (f *fakeACME) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeACME) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	if f.broken {
		http.Error(w, "down", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Replay-Nonce", rand.Text())
	var jws struct{ Protected, Payload string }
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&jws); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	kind, number, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	n := 0
	fmt.Sscan(number, &n)
	url := func(path string, n int) string { return fmt.Sprintf("%s/%s/%d", f.server.URL, path, n) }
	switch kind {
	case "dir":
		f.reply(w, 200, map[string]any{"newNonce": url("nonce", 0), "newAccount": url("account", 0),
			"newOrder": url("neworder", 0), "revokeCert": url("revoke", 0), "keyChange": url("change", 0)})
	case "nonce":
	case "account":
		f.register(jws.Protected)
		w.Header().Set("Location", url("account", 1))
		f.reply(w, 201, map[string]any{"status": "valid"})
	case "neworder":
		var order struct{ Identifiers []struct{ Value string } }
		json.Unmarshal(payload, &order)
		f.hosts = append(f.hosts, order.Identifiers[0].Value)
		f.certs = append(f.certs, nil)
		w.Header().Set("Location", url("order", len(f.hosts)-1))
		f.reply(w, 201, f.order(len(f.hosts)-1, url))
	case "order":
		f.reply(w, 200, f.order(n, url))
	case "authz":
		f.reply(w, 200, map[string]any{"status": f.status(n, "valid"), "identifier": identifier(f.hosts[n]),
			"challenges": []any{f.challenge(n, "http-01", url), f.challenge(n, "tls-alpn-01", url)}})
	case "http-01", "tls-alpn-01":
		f.validate(n, kind)
		f.reply(w, 200, f.challenge(n, kind, url))
	case "finalize":
		var req struct{ CSR string }
		json.Unmarshal(payload, &req)
		f.issue(n, req.CSR)
		f.reply(w, 200, f.order(n, url))
	case "cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		w.Write(f.certs[n])
	default:
		http.NotFound(w, r)
	}
}

func (f *fakeACME) reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func identifier(host string) any { return map[string]any{"type": "dns", "value": host} }

func (f *fakeACME) status(n int, done string) string {
	if f.valid[n] {
		return done
	}
	return "pending"
}

func (f *fakeACME) order(n int, url func(string, int) string) any {
	o := map[string]any{"status": f.status(n, "ready"), "identifiers": []any{identifier(f.hosts[n])},
		"authorizations": []any{url("authz", n)}, "finalize": url("finalize", n)}
	if f.certs[n] != nil {
		o["status"], o["certificate"] = "valid", url("cert", n)
	}
	return o
}

func (f *fakeACME) challenge(n int, kind string, url func(string, int) string) any {
	return map[string]any{"type": kind, "url": url(kind, n), "token": token(n), "status": f.status(n, "valid")}
}

func token(n int) string { return fmt.Sprintf("token-%d-0123456789abcdef", n) }

// register remembers the thumbprint (RFC 7638) of the key that signs for the account.
func (f *fakeACME) register(protected string) {
	var header struct {
		JWK struct{ Crv, Kty, X, Y string }
	}
	raw, _ := base64.RawURLEncoding.DecodeString(protected)
	if err := json.Unmarshal(raw, &header); err != nil || header.JWK.Kty != "EC" {
		f.t.Errorf("account key: %s, %v", raw, err)
	}
	k := header.JWK
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":%q,"x":%q,"y":%q}`, k.Crv, k.Kty, k.X, k.Y))
	f.thumb = base64.RawURLEncoding.EncodeToString(sum[:])
}

// validate proves who answers for the host, as RFC 8555 section 8.3 and RFC 8737 section 3 say.
func (f *fakeACME) validate(n int, kind string) {
	keyAuth := token(n) + "." + f.thumb
	if kind == "http-01" {
		req, _ := http.NewRequest("GET", "http://"+f.target+"/.well-known/acme-challenge/"+token(n), nil)
		req.Host = f.hosts[n]
		resp, err := f.server.Client().Do(req)
		if err != nil {
			f.t.Errorf("http-01: %v", err)
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		f.valid[n] = string(body) == keyAuth
		return
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", f.target,
		&tls.Config{ServerName: f.hosts[n], NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		f.t.Errorf("tls-alpn-01: %v", err)
		return
	}
	defer conn.Close()
	sum := sha256.Sum256([]byte(keyAuth))
	want, _ := asn1.Marshal(sum[:])
	for _, ext := range conn.ConnectionState().PeerCertificates[0].Extensions {
		if ext.Id.String() == "1.3.6.1.5.5.7.1.31" && ext.Critical && bytes.Equal(ext.Value, want) {
			f.valid[n] = conn.ConnectionState().NegotiatedProtocol == "acme-tls/1"
		}
	}
}

func (f *fakeACME) issue(n int, csr string) {
	der, _ := base64.RawURLEncoding.DecodeString(csr)
	req, err := x509.ParseCertificateRequest(der)
	if err != nil || !f.valid[n] {
		f.t.Errorf("finalize: %v, valid %v", err, f.valid[n])
		return
	}
	cert, err := sign(&x509.Certificate{SerialNumber: big.NewInt(int64(n)), DNSNames: req.DNSNames,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(f.lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		f.ca.cert, req.PublicKey, f.ca.key)
	if err != nil {
		f.t.Error(err)
	}
	f.certs[n] = append(cert, f.ca.CertPEM()...)
}
