package proxy

import (
	"crypto/sha256"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"landfall/configs"
	"landfall/gateway/ratelimit"
	"landfall/gateway/upstream"
)

// gatekeeper is the access phase of one route: who may come, and how often. Immutable but for what it counts.
type gatekeeper struct {
	route *configs.Route
	limit *ratelimit.Limit
	users *userList

	jwt      *jwtGate
	forward  *forwardGate
	identity []string // header fields that only the gateway may write, on every route of the service
	late     bool     // the limit counts by what only the check of identities tells
}

func (l *Lasting) gatekeeper(limit string, s *configs.Service, r *configs.Route, p *Proxy) *gatekeeper {
	g := &gatekeeper{route: r, limit: l.limit(limit, r.RateLimit), jwt: l.jwtGate(r, p), forward: l.forwardGate(r), identity: strippedHeaders(s), users: newUserList(r.BasicAuth)}
	if r.RateLimit != nil {
		name, header := strings.CutPrefix(r.RateLimit.By, "header:")
		g.late = header && slices.Contains(identityHeaders(r), http.CanonicalHeaderKey(name))
	}
	return g
}

// access is the phase between route and cache. A forwarded request has passed it on the first node.
func (x *exchange) access() *refusal {
	if x.head.hop > 0 {
		return nil
	}
	g := x.match.gate
	if no := g.address(x.head.client); no != nil {
		return no
	}
	if g.route.Auth != nil || len(g.identity) > 0 {
		stripHopByHop(x.in.Header) // now, or a client could have what is told of it end here: Connection: X-User
		stripIdentity(x.in.Header, g.identity)
	}
	if !g.late {
		if no := x.limited(); no != nil {
			return no
		}
	}
	if no := x.shed(); no != nil {
		return no // whoever it is
	}
	if g.users != nil {
		name, password, given := x.in.BasicAuth()
		known, busy := false, false
		if given {
			known, busy = g.users.knows(name, password)
		}
		if busy {
			return refused(overloaded, "too many passwords are being checked; try again")
		}
		if !known {
			no := refused(unauthorised, "a name and a password are needed")
			no.challenge = `Basic realm="` + g.route.BasicAuth.Realm + `", charset="UTF-8"`
			return no
		}
		x.in.Header.Del("Authorization")
	}
	if g.route.Auth != nil {
		if no := x.authorised(); no != nil {
			return no
		}
	}
	if g.late {
		return x.limited()
	}
	return nil
}

// limited charges the request to the route's limit.
func (x *exchange) limited() *refusal {
	g := x.match.gate
	if g.limit == nil {
		return nil
	}
	ok, wait := g.limit.Take(x.limitKey(g.route.RateLimit.By), x.p.o.Now())
	if ok {
		return nil
	}
	no := refused(rateLimited, "too many requests; try again later")
	no.retryAfter = wait
	return no
}

func (g *gatekeeper) address(client netip.Addr) *refusal {
	contains := func(list []configs.Prefix) bool {
		for _, p := range list {
			if p.Contains(client) {
				return true
			}
		}
		return false
	}
	if g.route.Allow != nil && !contains(g.route.Allow) || contains(g.route.Deny) {
		return refused(forbidden, "this address may not come here")
	}
	return nil
}

// limitKey is whose bucket a request is charged to.
func (x *exchange) limitKey(by string) uint64 {
	switch by {
	case "route":
		return 1
	case "client":
		a := x.head.client
		if a.Is6() { // a home has at least a /64: its addresses are one client
			p, err := a.Prefix(64)
			if err == nil {
				a = p.Addr()
			}
		}
		b := a.As16()
		h := uint64(14695981039346656037)
		for _, c := range b {
			h = (h ^ uint64(c)) * 1099511628211
		}
		return h
	}
	value, _ := x.sourced(by, x.in.Header)
	return upstream.HashKey(value, 0)
}

// retryAfter is a wait in whole seconds, rounded up (RFC 9110 section 10.2.3).
func retryAfter(d time.Duration) string {
	return strconv.Itoa(max(int(math.Ceil(d.Seconds())), 1))
}

// userList checks passwords. bcrypt is slow by design, so what was found right is remembered by a digest, and few checks
// run at once: past that a request is refused without one, and told so.
type userList struct {
	hashes map[string][]byte
	slots  chan struct{}

	mu    sync.Mutex
	known map[[sha256.Size]byte]bool
}

const (
	passwordChecks = 4
	knownPasswords = 1024
)

// nobody is a hash of no password, so that an unknown name takes as long as a known one.
const nobody = "$2y$10$PvTj4j3mCO9hwbYJzqKFCeWw4EhN1oTCnQjNCbVtNXjSyCwmUpa8e"

func newUserList(c *configs.BasicAuth) *userList {
	if c == nil {
		return nil
	}
	u := &userList{hashes: map[string][]byte{}, slots: make(chan struct{}, passwordChecks), known: map[[sha256.Size]byte]bool{}}
	for _, user := range c.Users {
		u.hashes[user.Name] = []byte(user.Hash)
	}
	return u
}

// knows checks a name's password; busy tells that there was no room to.
func (u *userList) knows(name, password string) (known, busy bool) {
	if len(password) > 72 || len(name) > 256 { // bcrypt's own bound
		return false, false
	}
	digest := sha256.Sum256([]byte(name + "\x00" + password))
	u.mu.Lock()
	known = u.known[digest]
	u.mu.Unlock()
	if known {
		return true, false
	}
	select {
	case u.slots <- struct{}{}:
		defer func() { <-u.slots }()
	default:
		return false, true
	}
	hash, exists := u.hashes[name]
	if !exists {
		hash = []byte(nobody)
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !exists {
		return false, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.known) >= knownPasswords {
		clear(u.known)
	}
	u.known[digest] = true
	return true, false
}

// grpcStatus is what a refusal's status means to a gRPC client (gRPC, HTTP to gRPC Status Code Mapping).
func grpcStatus(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "13" // INTERNAL
	case http.StatusUnauthorized:
		return "16" // UNAUTHENTICATED
	case http.StatusForbidden:
		return "7" // PERMISSION_DENIED
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusMisdirectedRequest:
		return "12" // UNIMPLEMENTED
	case http.StatusRequestEntityTooLarge:
		return "8" // RESOURCE_EXHAUSTED
	case http.StatusGatewayTimeout:
		return "4" // DEADLINE_EXCEEDED
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable:
		return "14" // UNAVAILABLE
	}
	return "2" // UNKNOWN
}
