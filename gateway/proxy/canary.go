package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
	"landfall/gateway/canary"
	"landfall/gateway/upstream"
)

// sideCookie keeps a client on its side of every canary. It holds a random number and not the side, so that a canary that
// grows only adds clients, and one that is taken back has none at once.
const (
	sideCookie    = "landfall-side"
	sideCookieAge = 30 * 24 * time.Hour
)

// canaryPlan is a route's canary.
type canaryPlan struct {
	config  *configs.Canary
	name    CanaryName
	print   string
	trial   *canary.Trial
	variant string // in the cache's key: the two sides' answers must not mix
	counts  [2][2]prometheus.Counter
}

// trialKey tells trials apart: a canary whose config changed begins anew.
type trialKey struct {
	CanaryName
	print string
}

// CanaryPrint tells two configs of a canary apart.
func CanaryPrint(c configs.Canary) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v", c))
	return hex.EncodeToString(sum[:6])
}

func (l *Lasting) canaryPlan(service string, c *configs.Canary, m *Metrics) *canaryPlan {
	if c == nil {
		return nil
	}
	plan := &canaryPlan{config: c, name: CanaryName{service, c.To}, print: CanaryPrint(configs.Canary{
		To: c.To, Weight: c.Weight, Sticky: c.Sticky, Rollback: c.Rollback, // what all routes of a canary agree in
	}), variant: "=canary " + c.To}
	plan.trial = l.trial(trialKey{plan.name, plan.print}, c.Rollback)
	for side, name := range []string{canary.Stable.String(), canary.Canary.String()} {
		for i, result := range []string{"ok", "failed"} {
			plan.counts[side][i] = m.canaries.WithLabelValues(service, c.To, name, result)
		}
	}
	return plan
}

func (l *Lasting) trial(key trialKey, r configs.Rollback) *canary.Trial {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.trials[key]
	if t == nil {
		t = canary.New(canary.Policy{
			ErrorRate: float64(r.ErrorRate), LatencyP99: float64(r.LatencyP99), Window: r.Window.D(), MinRequests: r.MinRequests, Confidence: float64(r.Confidence),
		})
		l.trials[key] = t
	}
	return t
}

// Canary is a canary of a configuration as it stands.
type Canary struct {
	CanaryName
	Print          string
	Config         *configs.Canary
	Weight         float64 // in force
	Stopped        bool
	Stable, Canary canary.Sample
	trial          *canary.Trial
}

// Look judges the canary if it is time to; see canary.Trial. A canary that is stopped, or has no weight of its own, is not
// judged.
func (c Canary) Look(now time.Time, judges int) (reason string) {
	if c.Stopped {
		return ""
	}
	return c.trial.Look(now, judges)
}

// Canaries are the canaries of the configuration, by service and target.
func (p *Proxy) Canaries() []Canary {
	var out []Canary
	seen := map[CanaryName]bool{}
	for _, service := range ServiceNames(p.o.Config) {
		for _, route := range p.hosts.named[service].plans {
			c := route.canary
			if c == nil || seen[c.name] {
				continue
			}
			seen[c.name] = true
			shown := Canary{CanaryName: c.name, Print: c.print, Config: c.config, trial: c.trial}
			shown.Weight, shown.Stopped = c.weight(p.o.Lasting)
			shown.Stable, shown.Canary = c.trial.Samples(p.o.Now())
			out = append(out, shown)
		}
	}
	return out
}

// CanaryOf is the canary of a route as it stands, and the side of a client where its address settles it: else empty.
func (p *Proxy) CanaryOf(service string, route int, client netip.Addr) (c Canary, side string, ok bool) {
	s := p.hosts.named[service]
	if s == nil || route >= len(s.plans) || s.plans[route].canary == nil {
		return Canary{}, "", false
	}
	plan := s.plans[route].canary
	c = Canary{CanaryName: plan.name, Print: plan.print, Config: plan.config}
	c.Weight, c.Stopped = plan.weight(p.o.Lasting)
	switch {
	case c.Stopped || c.Weight <= 0:
		side = canary.Stable.String()
	case c.Weight >= 1:
		side = canary.Canary.String()
	case plan.config.Sticky == "client" && client.IsValid():
		side = canary.Stable.String()
		if falls(c.Service, c.To, client.Unmap().String()) < c.Weight {
			side = canary.Canary.String()
		}
	}
	return c, side, true
}

// InForce forgets what only earlier configurations needed. To be called once the Proxy's own is in force.
func (p *Proxy) InForce() {
	l, used := p.o.Lasting, map[trialKey]bool{}
	for _, c := range p.Canaries() {
		used[trialKey{c.CanaryName, c.Print}] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keepLimits(p.o.Config, p.o.Now())
	l.keepKeys(p.o.Config)
	for key := range l.trials {
		if !used[key] {
			delete(l.trials, key)
		}
	}
}

// weight is the share of the clients that the canary serves now.
func (c *canaryPlan) weight(l *Lasting) (share float64, stopped bool) {
	if o, ok := l.controls.Load().Canaries[c.name]; ok && o.Print == c.print {
		return o.Weight, o.Stopped
	}
	return float64(c.config.Weight), false
}

// chooseSide settles whether the canary of the request's route serves it. A forwarded request was settled on the first
// node.
func (x *exchange) chooseSide() {
	c := x.match.canary
	if x.head.hop > 0 {
		if x.p.hosts.named[x.head.to] != nil { // or the two nodes' configs differ
			x.to = x.head.to
		}
		return
	}
	if c == nil {
		return
	}
	weight, stopped := c.weight(x.p.o.Lasting)
	if stopped {
		return
	}
	if weight >= 1 || c.asked(x.in.Header) || weight > 0 && x.falls(c) < weight {
		x.to, x.side, x.variant = c.config.To, canary.Canary, x.variant+c.variant
	}
}

// asked tells whether the request asks for the canary.
func (c *canaryPlan) asked(h http.Header) bool {
	if name, want, valued := strings.Cut(c.config.Header, ":"); name != "" {
		got := h.Values(name)
		if len(got) > 0 && (!valued || got[0] == strings.TrimSpace(want)) {
			return true
		}
	}
	if name, want, valued := strings.Cut(c.config.Cookie, "="); name != "" {
		got, ok := cookieOf(h, name)
		return ok && (!valued || got == want)
	}
	return false
}

// falls is where the client falls between 0 and 1 in the eyes of a canary.
func (x *exchange) falls(c *canaryPlan) float64 {
	switch c.config.Sticky {
	case "client":
		return falls(c.name.Service, c.name.To, x.head.client.String())
	case "off":
		return rand.Float64()
	}
	id, ok := cookieOf(x.in.Header, sideCookie)
	if _, err := strconv.ParseUint(id, 16, 64); !ok || err != nil || len(id) != 16 {
		id = fmt.Sprintf("%016x", rand.Uint64())
		x.setSide = id
	}
	return falls(c.name.Service, c.name.To, id)
}

// falls spreads values evenly between 0 and 1, differently for each name.
func falls(kind, name, value string) float64 {
	return float64(upstream.HashKey(value, upstream.HashKey(name, upstream.HashKey(kind, 0)))>>11) / (1 << 53)
}

// giveSide gives the client the cookie that keeps it on its side. A response that carries one is for this client alone.
func (x *exchange) giveSide(h http.Header) {
	if x.setSide == "" {
		return
	}
	c := http.Cookie{Name: sideCookie, Value: x.setSide, Path: "/", MaxAge: int(sideCookieAge / time.Second), HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.head.scheme == "https"}
	h.Add("Set-Cookie", c.String())
	h.Add("Cache-Control", "private")
	if h["Cdn-Cache-Control"] != nil {
		h.Set("Cdn-Cache-Control", "private") // RFC 9213: it would be heeded in place of Cache-Control
	}
}

// compare tells the canary's trial how a request that went to an origin came out. A failure of the client's own tells
// nothing.
func (x *exchange) compare(resp *http.Response, err error, took time.Duration) {
	c := x.match.canary
	if c == nil || x.head.hop > 0 {
		return
	}
	failed := 0
	if err != nil {
		if errors.Is(err, context.Canceled) || x.p.refusalFor(err).clientsFault() {
			return
		}
		failed = 1
	} else if resp.StatusCode >= 500 {
		failed = 1
	}
	c.counts[x.side][failed].Inc()
	c.trial.Observe(x.side, failed == 1, took, x.p.o.Now())
}

// clientsFault tells whether a refusal says nothing of the origins.
func (no *refusal) clientsFault() bool {
	status := answers[no.reason].status
	return status >= 400 && status < 500
}
