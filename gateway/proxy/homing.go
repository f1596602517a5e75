package proxy

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"landfall/gateway/homes"
	"landfall/routing"
)

// placement is where a request has to be served because of the data that it is about.
type placement struct {
	regions []string // in order; none: wherever steering leads
	why     string   // for the metric: primary, own_write, or a homes.Why
	from    string   // the region that the user moved from, while a migration lasts
	old     string   // the same for a read, which may find there what has not followed yet
	strict  bool     // nowhere else
}

// The headers by which an origin hears of a user's home and of a move.
const (
	headerHome      = "X-Landfall-Home"
	headerMovedFrom = "X-Landfall-Moved-From"
)

// headerStay asks another node to serve a request in its own region or to refuse it.
const headerStay = "Landfall-Stay"

// wroteCookie remembers a client's write: its value is the Unix time in milliseconds until which its reads go to the primary.
const wroteCookie = "landfall-wrote"

// safe tells a method that asks for nothing but an answer (RFC 9110 section 9.2.1).
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// place is the part of the region phase that data decides. It waits for a lookup of an unknown user's home, and a write
// waits for its user's move to be over; both are bounded by the config.
func (x *exchange) place(from *http.Request) (placement, *refusal) {
	s := x.match.service
	if x.head.hop > 0 || s.config.Primary == "" && s.homes == nil {
		return placement{}, nil
	}
	read := safe(x.head.method) && x.head.upgrade == ""
	if s.homes != nil {
		if user, ok := x.sourced(s.config.Affinity.By, from.Header); ok {
			return x.placeUser(from.Context(), user, read)
		}
	}
	switch {
	case s.config.Primary == "":
	case !safe(x.head.method):
		return placement{regions: []string{s.config.Primary}, why: "primary", strict: true}, nil
	case x.wrote:
		return placement{regions: []string{s.config.Primary}, why: "own_write"}, nil
	}
	return placement{}, nil
}

func (x *exchange) placeUser(ctx context.Context, user string, read bool) (placement, *refusal) {
	s := x.match.service
	h, err := s.homes.Find(ctx, user)
	if err != nil {
		x.p.o.Metrics.placed(s.name, "", "unknown")
		if read {
			return placement{}, nil
		}
		return placement{}, &refusal{reason: homeUnknown, text: textOf(homeUnknown), cause: err, retryAfter: time.Second}
	}
	if !read && h.Wait > 0 {
		x.p.o.Metrics.waited.WithLabelValues(s.name).Inc()
		timer := time.NewTimer(h.Wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return placement{}, &refusal{reason: clientGone, text: textOf(clientGone), cause: ctx.Err()}
		}
		if again, err := s.homes.Find(ctx, user); err == nil {
			h = again
		}
	}
	p := placement{regions: []string{h.Region}, why: string(h.Why), from: h.Old, strict: s.config.Affinity.Strict && !read}
	if !p.strict {
		p.regions = append(p.regions, h.Then...)
	}
	if read {
		p.old = h.Old
	}
	return p, nil
}

// belongs tells whether the request has a place of its own, which the nodes that share this one's cache don't know.
func (x *exchange) belongs(from *http.Request) bool {
	if x.match.service.homes == nil {
		return x.wrote
	}
	_, ok := x.sourced(x.match.service.config.Affinity.By, from.Header)
	return ok || x.wrote
}

// recentWriter notes that this client has written lately, and takes our cookie out of what origins and the cache see.
func (x *exchange) recentWriter(h http.Header) {
	s := x.match.service
	lasts := s.config.ReadYourWrites.D()
	if lasts <= 0 {
		return
	}
	now := x.p.o.Now()
	for i, line := range h["Cookie"] {
		if !strings.Contains(line, wroteCookie+"=") {
			continue
		}
		var kept []string
		for part := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			if name != wroteCookie {
				kept = append(kept, strings.TrimSpace(part))
				continue
			}
			// A date beyond what we set is a client's own: it would cost the primary, for ever.
			until, err := strconv.ParseInt(value, 10, 64)
			left := time.UnixMilli(until).Sub(now)
			x.wrote = x.wrote || err == nil && left > 0 && left <= lasts+maxSkew
		}
		if h["Cookie"][i] = strings.Join(kept, "; "); len(kept) == 0 {
			h["Cookie"] = slices.Delete(slices.Clone(h["Cookie"]), i, i+1)
			if len(h["Cookie"]) == 0 {
				delete(h, "Cookie")
			}
			break // there is one cookie of a name
		}
	}
	if user, ok := x.writer(h); ok && !x.wrote {
		x.wrote = s.writers.wrote(user, now)
	}
}

// maxSkew is how much the clocks of two nodes may differ.
const maxSkew = time.Minute

// writer names a client that keeps no cookies, where the config says by what.
func (x *exchange) writer(h http.Header) (user uint64, ok bool) {
	if a := x.match.service.config.Affinity; a != nil {
		if value, ok := x.sourced(a.By, h); ok {
			return homes.KeyOf(value), true
		}
	}
	return 0, false
}

// rememberWrite tells the client, with the response to a write, to read from the primary for a while.
func (x *exchange) rememberWrite(h http.Header) {
	s := x.match.service
	if s == nil || s.config.ReadYourWrites <= 0 || x.head.hop > 0 || safe(x.head.method) || x.trail.Load() == nil {
		return
	}
	lasts := s.config.ReadYourWrites.D()
	until := x.p.o.Now().Add(lasts)
	if user, ok := x.writer(x.in.Header); ok {
		s.writers.note(user, until)
	}
	c := http.Cookie{
		Name: wroteCookie, Value: strconv.FormatInt(until.UnixMilli(), 10), Path: "/", MaxAge: max(int(lasts/time.Second), 1),
		HttpOnly: true, Secure: x.head.scheme == "https", SameSite: http.SameSiteLaxMode,
	}
	h.Add("Set-Cookie", c.String())
}

// directed serves a request where its data is: the first of the regions that answers.
func (x *exchange) directed(p placement, from *http.Request, coding string, body *bodyWatch) (*http.Response, trail, error) {
	from = x.tellHome(p, from)
	s := x.p.o.Snapshot()
	var tr trail
	var err error
	for i, name := range p.regions {
		if !x.takes(s, name, p.strict) {
			continue
		}
		var resp *http.Response
		if resp, tr, err = x.serveIn(s, name, from, coding, body); err == nil {
			why := p.why
			if i > 0 {
				why = "away"
			}
			x.p.o.Metrics.placed(x.match.service.name, name, why)
			if i == 0 && p.old != "" {
				return x.orFromOld(s, p.old, resp, tr, from, coding, body)
			}
			return resp, tr, nil
		}
		if from.Context().Err() != nil || !untouched(err, body) && !x.readAgain(name, err, from, body) {
			return nil, tr, err
		}
	}
	if p.strict {
		return nil, tr, &refusal{reason: homeAway, text: textOf(homeAway), cause: err, noPool: err == nil || untouched(err, body)}
	}
	x.p.o.Metrics.placed(x.match.service.name, "", "away")
	return x.anywhere(from, coding, body)
}

// readAgain tells whether a read that may have reached an origin of this region goes to another one.
func (x *exchange) readAgain(region string, err error, from *http.Request, body *bodyWatch) bool {
	return safe(x.head.method) && region == x.p.o.Region && x.mayRepeat(err, x.p.o.Pools[x.target()], from, body)
}

// tellHome puts the home on the request for the origin.
func (x *exchange) tellHome(p placement, from *http.Request) *http.Request {
	out := from.Clone(from.Context())
	out.Trailer = from.Trailer
	out.Header.Set(headerHome, p.regions[0])
	if p.why == string(homes.Moved) {
		out.Header.Set(headerMovedFrom, p.from)
	}
	return out
}

// takes tells whether a region may and can take a request that belongs there.
func (x *exchange) takes(s *routing.Snapshot, name string, strict bool) bool {
	region, service := s.Region(name), s.Service(x.target())
	if region < 0 || service < 0 || s.Forbidden(service, region, routing.CountryOf(x.head.country)) {
		return false
	}
	if region == x.p.self && x.p.o.Pools[x.target()] != nil && strict {
		return true // better tried than refused
	}
	r, place := s.Regions[region], s.Services[service].Places[region]
	if r.Dead || !place.HasPool {
		return false
	}
	return strict || !r.Drained && place.Pool != routing.Down && place.Drained < 1
}

// serveIn serves a request in one region, this or another.
func (x *exchange) serveIn(s *routing.Snapshot, name string, from *http.Request, coding string, body *bodyWatch) (*http.Response, trail, error) {
	if region := s.Region(name); region != x.p.self {
		var tr trail
		resp, _, err := x.offer(s, region, &tr, true, from, coding, body)
		if resp == nil && err == nil {
			err = &refusal{reason: noRegion, text: textOf(noRegion), noPool: true}
		}
		return resp, tr, err
	}
	pool := x.p.o.Pools[x.target()]
	if pool == nil {
		return nil, trail{}, &refusal{reason: noRegion, text: textOf(noRegion), noPool: true}
	}
	return x.here(pool, from, coding, body)
}

// orFromOld asks the user's old home for what the new one has not got (404), while a migration lasts.
func (x *exchange) orFromOld(s *routing.Snapshot, old string, resp *http.Response, tr trail, from *http.Request, coding string, body *bodyWatch) (*http.Response, trail, error) {
	if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusGone || !body.whole() || !x.takes(s, old, false) {
		return resp, tr, nil
	}
	again, tr2, err := x.serveIn(s, old, from, coding, body)
	result := "found"
	switch {
	case err != nil:
		result = "failed"
	case again.StatusCode >= http.StatusBadRequest:
		result = "missing"
		_ = again.Body.Close()
	}
	x.p.o.Metrics.oldReads.WithLabelValues(x.match.service.name, result).Inc()
	if result != "found" {
		return resp, tr, nil
	}
	_ = resp.Body.Close()
	return again, tr2, nil
}
