package proxy

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"landfall/routing"
)

// headResult is one normalised request. Route match and cache key are functions of it, not of the http.Request.
type headResult struct {
	method string
	asks   string // on a CORS preflight: the method that the page wants to use; empty: it is none
	host   string // lower case, without port
	// authority is the host with its port, unless that is the scheme's own: what the origin is told and the cache's key has.
	authority string
	path      string // escaped, with dot segments removed (RFC 3986 section 5.2.4)
	query     string
	scheme    string // as the client used it, or a trusted proxy said

	client  netip.Addr // the user's address, behind trusted proxies
	country string     // ISO 3166-1 alpha-2, when known
	id      string     // request id
	upgrade string     // the protocol asked for with Upgrade; empty: none
	stream  bool       // it was asked for by an extended CONNECT (RFC 8441): the stream takes the place of a connection
	loops   []string   // CDN-Loop as received
	hop     int        // nodes of this fleet that forwarded it before: 0 from a client
	service string     // on a forwarded request: the service that the first node matched
	again   bool       // on a forwarded request: an origin of another region may have seen it
	stay    bool       // on a forwarded request: to be served in this region, or refused
	role    string     // on one that another node's cache sends: what this node is to it
	to      string     // on a forwarded request: the service whose pools are to serve it; empty: as the route says

	rtt time.Duration // to the client, as a trusted proxy told it; 0: it did not
}

func (h headResult) uri() string {
	if h.query == "" {
		return h.path
	}
	return h.path + "?" + h.query
}

const (
	methodPurge = "PURGE"
	cdnID       = "landfall" // in CDN-Loop (RFC 8586) and Via

	// maxHops bounds how often nodes may forward one request: to the region's holder of its key, to the shield's region, to
	// the next region, and once more when that has just lost its pool too. The first two come once each, and what a region
	// forwards for want of a pool never goes to itself, so no loop is shorter.
	maxHops = 4
)

// headerProtocol is where net/http puts the :protocol of an extended CONNECT.
const headerProtocol = ":protocol"

// The headers of the hop between two nodes. Every Landfall- header that a client sends is removed.
const (
	headerPrefix  = "Landfall-"
	headerHop     = "Landfall-Hop"
	headerService = "Landfall-Service"
	headerTo      = "Landfall-To"
	headerClient  = "Landfall-Client"
	headerScheme  = "Landfall-Scheme"
	headerUpgrade = "Landfall-Upgrade"
	headerStatus  = "Landfall-Status"
	headerFault   = "X-Landfall-Fault"  // told to clients: a fault was made on purpose
	headerAgain   = "Landfall-Repeated" // an origin of another region may have seen the request: no further region repeats it
	headerNoPool  = "Landfall-No-Pool"  // on an answer: nothing was sent to an origin, try elsewhere
)

// IsForwarded tells a request that another node forwards from the peer channel's own messages.
func IsForwarded(r *http.Request) bool { return r.Header.Get(headerHop) != "" }

// head is the first phase: one normalised request, or a refusal.
func (p *Proxy) head(r *http.Request, conn Conn) (headResult, *refusal) {
	h := headResult{method: r.Method, scheme: "http", client: conn.Remote.Unmap(), id: conn.RequestID, query: r.URL.RawQuery}
	if conn.TLS {
		h.scheme = "https"
	}
	var ok bool
	if h.host, ok = normalHost(r.Host); !ok {
		return h, refused(malformed, "the Host is not a host name")
	}
	if h.path, ok = normalPath(r.URL); !ok {
		return h, refused(malformed, "the path is not a valid absolute path")
	}
	if conn.Peer != "" {
		return p.peerHead(h, r) // the first node read the path by the service's rules
	}
	if s := p.hosts.find(h.host); s != nil {
		if h.path, ok = s.paths.normal(h.path); !ok {
			return h, refused(malformed, "the path has an escaped slash")
		}
	}
	for _, v := range r.Header["Cdn-Loop"] {
		for info := range strings.SplitSeq(v, ",") {
			id, _, _ := strings.Cut(info, ";")
			if strings.EqualFold(strings.TrimSpace(id), cdnID) {
				return h, refused(loop, "this request has been here before")
			}
		}
	}
	h.loops = r.Header["Cdn-Loop"]
	if p.isTrusted(h.client) {
		h.client = p.clientBehind(h.client, r.Header)
		if proto := strings.ToLower(r.Header.Get("X-Forwarded-Proto")); proto == "http" || proto == "https" {
			h.scheme = proto
		}
		h.rtt = toldRTT(r.Header, p.o.Config.DNS.RTT.Header)
		if id := r.Header.Get("X-Request-Id"); id != "" && len(id) <= 128 && httpguts.ValidHeaderFieldValue(id) {
			h.id = id
		}
	}
	if h.upgrade = upgradeOf(r); r.Method == http.MethodConnect {
		// From here on it is what it is over HTTP/1.1 (RFC 8441 section 5): a GET.
		h.method, h.upgrade, h.stream = http.MethodGet, strings.Join(r.Header[headerProtocol], ","), true
	}
	if h.method == http.MethodOptions && r.Header.Get("Origin") != "" {
		h.asks = r.Header.Get("Access-Control-Request-Method")
	}
	if place, ok := p.o.Locator.Lookup(h.client); ok {
		h.country = place.Country
	}
	h.authority = h.host + portOf(r.Host, h.scheme)
	return h, nil
}

// toldRTT reads a round trip in milliseconds, up to ten seconds; anything else is none.
func toldRTT(h http.Header, name string) time.Duration {
	if name == "" {
		return 0
	}
	ms, err := strconv.ParseFloat(h.Get(name), 64)
	if err != nil || !(ms > 0 && ms <= 10_000) {
		return 0
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// peerHead reads what the forwarding node said of the request. The peer is authenticated, yet a field that can't be
// right is refused: two versions of the program may disagree.
func (p *Proxy) peerHead(h headResult, r *http.Request) (headResult, *refusal) {
	hop, err := strconv.Atoi(r.Header.Get(headerHop))
	if err != nil || hop < 1 {
		return h, refused(malformed, headerHop+" is not a positive number")
	}
	if hop > maxHops {
		return h, refused(hopLimit, "the request was forwarded too often between regions")
	}
	client, err := netip.ParseAddr(r.Header.Get(headerClient))
	if err != nil {
		return h, refused(malformed, headerClient+" is not an address")
	}
	h.country = r.Header.Get("X-Client-Country") // the first node's word
	h.hop, h.client, h.service, h.to = hop, client, r.Header.Get(headerService), r.Header.Get(headerTo)
	h.stay = r.Header.Get(headerStay) != ""
	h.again = r.Header.Get(headerAgain) != ""
	h.upgrade = r.Header.Get(headerUpgrade)
	switch role := r.Header.Get(headerRole); {
	case role == roleForget:
		h.role, h.method = role, methodPurge
	case (role == rolePeer || role == roleShield) && (h.method == http.MethodGet || h.method == http.MethodHead) && h.upgrade == "":
		h.role = role
	}
	if h.upgrade != "" {
		h.method = http.MethodGet // the channel carries it as a POST, whose body is the client's side of the connection
	}
	if s := r.Header.Get(headerScheme); s == "http" || s == "https" {
		h.scheme = s
	}
	if id := r.Header.Get("X-Request-Id"); id != "" {
		h.id = id
	}
	if c := r.Header.Get("X-Client-Country"); routing.CountryOf(c) != 0 { // the first node's word, who cleaned the rest
		h.country = c
	}
	h.authority = h.host + portOf(r.Host, h.scheme)
	return h, nil
}

// portOf is ":" and the port of a valid Host, or nothing for the scheme's own port.
func portOf(host, scheme string) string {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.HasSuffix(host, "]") {
		return ""
	}
	n, err := strconv.ParseUint(host[i+1:], 10, 16)
	if err != nil || scheme == "http" && n == 80 || scheme == "https" && n == 443 {
		return ""
	}
	return ":" + strconv.FormatUint(n, 10)
}

// normalHost is the host of a request without port, in lower case and without the final dot.
func normalHost(host string) (string, bool) {
	if strings.HasPrefix(host, "[") { // an IPv6 literal
		end := strings.IndexByte(host, ']')
		if end < 0 || !validPort(host[end+1:]) {
			return "", false
		}
		a, err := netip.ParseAddr(host[1:end])
		return "[" + a.String() + "]", err == nil && a.Zone() == ""
	}
	name := host
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if !validPort(host[i:]) {
			return "", false
		}
		name = host[:i]
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 {
		return "", false
	}
	for i := range len(name) {
		c := name[i]
		if c == '.' && (i == 0 || name[i-1] == '.' || i == len(name)-1) {
			return "", false // an empty label (RFC 1035 section 2.3.1)
		}
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return "", false
		}
	}
	return strings.ToLower(name), true
}

// validPort accepts "" and ":" with up to five digits (RFC 3986 section 3.2.3 allows none).
func validPort(s string) bool {
	if s == "" || s == ":" {
		return true
	}
	n, err := strconv.ParseUint(s[1:], 10, 16)
	return s[0] == ':' && err == nil && n > 0
}

// upgradeOf is the protocol that an HTTP/1.1 request asks to switch to (RFC 9110 section 7.8), or empty. A switch to
// another version of HTTP is ignored, as the section allows: it would let the client speak to the origin past every phase.
func upgradeOf(r *http.Request) string {
	if r.ProtoMajor != 1 || !httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	to := strings.Join(r.Header["Upgrade"], ",")
	for protocol := range strings.SplitSeq(strings.ToLower(to), ",") {
		if name, _, _ := strings.Cut(strings.TrimSpace(protocol), "/"); name == "h2c" || name == "h2" || name == "http" {
			return ""
		}
	}
	return to
}

func (p *Proxy) isTrusted(a netip.Addr) bool {
	for _, t := range p.trusted {
		if t.Contains(a) {
			return true
		}
	}
	return false
}

// clientBehind reads X-Forwarded-For from the right: the first address that is not a trusted proxy is the client. What is
// left of it was written by that client and is not believed.
func (p *Proxy) clientBehind(direct netip.Addr, h http.Header) netip.Addr {
	parts := strings.Split(strings.Join(h["X-Forwarded-For"], ","), ",")
	client := direct
	for i := len(parts) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(parts[i]))
		if err != nil {
			break
		}
		client = a.Unmap()
		if !p.isTrusted(client) {
			break
		}
	}
	return client
}
