package cache

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Outcome is what became of a request.
type Outcome struct {
	Status  int    // written; 0: nothing was
	Bytes   int64  // of the body, as handed to the writer
	Result  string // Hit, Miss, Stale, Revalidated, Pass, Collapsed or Failed
	Forward string // why it was forwarded, a reason of RFC 9211 section 2.2; "": it was not
	Stored  bool   // its fetch was stored
	Err     error  // why there is no response; nothing was written, and the caller answers
	Aborted bool   // the body did not reach the client whole; the caller must abort the connection
}

// exchange is one request on its way through the cache.
type exchange struct {
	c       *Cache
	w       http.ResponseWriter
	r       *http.Request
	header  http.Header
	key     Key
	keyed   []string // header fields that are in it
	hash    uint64   // of its URL
	shard   *shard
	policy  Policy
	fetch   Fetch
	now     time.Time
	gen     uint64 // the purges that were before it
	request directives
	detail  string // of Cache-Status, with a hit
}

// Serve answers r from the store, by joining a fetch or by fetch, and writes the response to w. view is what the key is
// made of; its header should be r's. See the package comment for what it does with which request.
func (c *Cache) Serve(w http.ResponseWriter, r *http.Request, view Request, p Policy, fetch Fetch) Outcome {
	if view.Header == nil {
		view.Header = r.Header
	}
	x := exchange{c: c, w: w, r: r, header: view.Header, key: KeyOf(view), policy: p, fetch: fetch, now: c.now(), gen: c.generations.now.Load()}
	if view.Policy != nil {
		x.keyed = view.Policy.Headers
	}
	x.key = c.searches.keyOf(x.key, c.searches.rule(x.key))
	x.hash = x.key.url().hash(c.store.seed)
	x.shard = c.store.shardOf(x.hash)
	out := x.serve()
	if p.Peer {
		c.metrics.peers[out.Result].Inc()
		return out
	}
	x.shard.results.of(out.Result).Add(1)
	c.metrics.requests[out.Result].Inc()
	return out
}

func (x *exchange) serve() Outcome {
	switch {
	case x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		return x.passMethod()
	case x.policy.Off, x.c.maxObject == 0, x.r.ContentLength != 0, len(x.r.TransferEncoding) > 0:
		return x.pass(fwdBypass)
	}
	if lines := x.header["Cache-Control"]; len(lines) > 0 {
		x.request = parseDirectives(lines)
	}
	f := x.shard.lookup(x.hash, &x.key, x.header)
	if f.object == nil && x.fromDisk(f.others) {
		x.now, x.detail = x.c.now(), detailDisk
		f = x.shard.lookup(x.hash, &x.key, x.header)
	}
	if f.object != nil {
		if out, done := x.reuse(f.object); done {
			return out
		}
	}
	return x.forward(f)
}

// reuse answers from an object without waiting for the origin, if that is allowed.
func (x *exchange) reuse(o *object) (out Outcome, done bool) {
	unsure := x.c.unsure(o)
	fresh := o.isFresh(x.now) && !unsure
	if !o.is(isLicensed) && x.header["Authorization"] != nil {
		if fresh {
			return x.pass(fwdRequest), true
		}
		return x.pass(fwdStale), true
	}
	n := note{hit: true, ttl: floorSeconds(o.remaining(x.now)), detail: x.detail}
	switch {
	case fresh:
		if x.policy.RefreshAhead > 0 && !o.is(isImmutable) && o.remaining(x.now) < time.Duration(x.policy.RefreshAhead*float64(o.fresh)) {
			x.refresh(o) // it is in use, so it will be asked for again
		}
		return x.writeObject(o, n, Hit), true
	case !unsure && o.mayRefresh(x.now) && !x.policy.Peer:
		x.refresh(o)
		return x.writeObject(o, n, Stale), true
	case o.failedWithin(x.now, retryAfter) && o.mayHide(x.now):
		return x.writeObject(o, n, Stale), true
	}
	return out, false
}

// refresh revalidates an object in the background, once at a time.
func (x *exchange) refresh(o *object) {
	if x.request.onlyIfCached || o.failedWithin(x.now, retryAfter) {
		return
	}
	least := time.Duration(0)
	if o.isFresh(x.now) {
		least = time.Duration(x.policy.RefreshAhead * float64(o.fresh))
	}
	x.fetchBehind(o, x.source(least))
}

// fillBehind fetches in the background the whole of what a range was asked of. Where that isn't wanted, or was found
// unstorable of late, it does nothing.
func (x *exchange) fillBehind() {
	if !x.policy.RangeFill || x.request.noStore || x.r.Method != http.MethodGet || x.header["Range"] == nil ||
		x.header["Authorization"] != nil || x.c.marks.has(x.key, x.now) {
		return
	}
	x.fetchBehind(nil, nil)
}

// fetchBehind makes a fetch for the store alone, to renew an object if there is one, and of another coding's variant where
// that is newer; or leaves it to one under way.
func (x *exchange) fetchBehind(prior, src *object) {
	f, leads, _ := x.c.store.join(x.key, x.header, x.gen, prior, func() *fill { return x.newRecoding(prior, src) })
	switch {
	case leads:
		f.detach(true)
		go f.run()
	case f != nil:
		f.detach(false)
	}
}

// forward asks the origin, alone or with others.
func (x *exchange) forward(found found) Outcome {
	reason := found.reason()
	if out, done := x.recode(found.object, reason); done {
		return out
	}
	if x.request.onlyIfCached {
		return x.writeTimeout()
	}
	revalidates := found.object != nil && found.object.validatable()
	// A HEAD of what is stored renews that, as its answer would say whether it still holds (section 4.3.5).
	partial := x.r.Method == http.MethodHead && found.object == nil || x.r.Method == http.MethodGet && x.header["Range"] != nil
	if x.request.noStore || (partial && !revalidates) {
		x.fillBehind()
		return x.passShared(reason)
	}
	if marked := x.c.marks.has(x.key, x.now); marked || x.policy.NoCollapse {
		if marked && isConditional(x.header) && !revalidates {
			// Most likely nothing will be stored again: then the client's own conditions save the body.
			return x.pass(reason)
		}
		return x.alone(found.object, reason)
	}
	var failure *Outcome
	for range 2 { // a fetch of another request's may fail for what that request is: such a failure is tried once more
		f, leads, o := x.c.store.join(x.key, x.header, x.gen, found.object, func() *fill { return x.newFill(found.object) })
		switch {
		case leads:
			return x.lead(f, reason)
		case o != nil:
			x.now = x.c.now()
			if out, done := x.reuse(o); done {
				return out
			}
			return x.alone(o, fwdStale)
		case f == nil:
			return x.pass(reason)
		}
		out, next := x.follow(f, found.object, reason)
		switch next {
		case served:
			return out
		case goAlone:
			return x.alone(found.object, reason)
		}
		failure = &out
		if out.Err == nil { // it was purged under way
			failure = nil
		}
	}
	if failure == nil {
		return x.alone(found.object, reason)
	}
	return *failure
}

// next is what a request does after it waited for another's fetch.
type next uint8

const (
	served  next = iota
	goAlone      // it can't have what the other got
	again        // the other got nothing
)

// follow waits for the fetch of another request and shares its answer if that may be shared.
func (x *exchange) follow(f *fill, stale *object, reason string) (Outcome, next) {
	defer f.detach(false)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-f.ready:
	case <-timer.C:
		return Outcome{}, goAlone
	case <-x.r.Context().Done():
		return failure(reason, context.Cause(x.r.Context())), served
	}
	x.now = x.c.now()
	cells := f.cells
	if f.verdict == renewed {
		cells = f.object.cells
	}
	if f.spoiled(cells, x.gen) {
		return Outcome{}, again
	}
	n := note{fwd: reason, collapsed: true, detail: f.asking.Detail}
	switch f.verdict {
	case shared:
		if x.fits(f, f.meta.varyNames, f.meta.licensed) {
			if place := f.stream.join(); place != nil {
				x.c.countShared(f)
				return x.writeStream(f, place, n, Collapsed), served
			}
		}
	case renewed:
		if f.shareable && x.fits(f, f.object.varyNames(), f.object.is(isLicensed)) {
			x.c.countShared(f)
			n.fwdStatus = f.status
			return x.writeObject(f.object, n, Collapsed), served
		}
	case lost:
		if stale != nil && stale.mayHide(x.now) && !stale.purged() {
			x.c.countShared(f)
			n.fwdStatus = f.status
			return x.writeObject(stale, n, Stale), served
		}
		return failure(reason, f.err), again
	}
	return Outcome{}, goAlone
}

// fits tells whether the answer to f's request may answer this one, too.
func (x *exchange) fits(f *fill, varyNames []string, licensed bool) bool {
	for _, name := range varyNames {
		mine, have := fieldValue(x.header, name)
		its, has := fieldValue(f.header, name)
		if mine != its || have != has {
			return false
		}
	}
	return licensed || x.header["Authorization"] == nil
}

func (c *Cache) countShared(f *fill) {
	if f.followed.CompareAndSwap(false, true) {
		c.metrics.leaders.Inc()
	}
	c.metrics.followers.Inc()
}

// lead makes the fetch that others may join.
func (x *exchange) lead(f *fill, reason string) Outcome {
	go f.run()
	select {
	case <-f.ready:
		return x.conclude(f, reason)
	case <-x.r.Context().Done():
		f.detach(true)
		return failure(reason, context.Cause(x.r.Context()))
	}
}

// alone makes a fetch that nobody joins, and that ends with its client until it is known to be stored.
func (x *exchange) alone(stale *object, reason string) Outcome {
	f := x.newFill(stale)
	if f == nil {
		return x.pass(reason)
	}
	x.c.store.enroll(f)
	stop := context.AfterFunc(x.r.Context(), f.cancel)
	f.open()
	if f.verdict == shared || f.verdict == private {
		stop()
		go f.pump()
	} else {
		f.pump() // which then only ends it
	}
	return x.conclude(f, reason)
}

// conclude answers the request that a fetch was made for.
func (x *exchange) conclude(f *fill, reason string) Outcome {
	defer f.detach(false)
	x.now = x.c.now()
	switch f.verdict {
	case shared, private:
		return x.writeStream(f, f.owner, note{fwd: reason, stored: true, detail: f.asking.Detail}, Miss)
	case handed:
		stop := context.AfterFunc(x.r.Context(), f.cancel)
		defer stop()
		defer f.cancel()
		return x.relay(f.response, note{fwd: reason, detail: f.asking.Detail}, Miss)
	case renewed:
		out := x.writeObject(f.object, note{fwd: fwdStale, fwdStatus: f.status, detail: f.asking.Detail}, Revalidated)
		out.Stored = f.stored.Load()
		return out
	}
	if o := f.prior; o != nil && o.mayHide(x.now) && !o.purged() {
		return x.writeObject(o, note{fwd: fwdStale, fwdStatus: f.status}, Stale)
	}
	return failure(reason, f.err)
}

// pass forwards the request as it is.
func (x *exchange) pass(reason string) Outcome {
	response, err := checked(x.fetch(x.r.Context(), x.r))
	if err != nil {
		return failure(reason, err)
	}
	return x.relay(response, note{fwd: reason}, Pass)
}

// passShared forwards a request that is not worth a fetch of the whole, but that another cache may be able to answer.
func (x *exchange) passShared(reason string) Outcome {
	a := Asking{Shareable: x.shareable(), Holds: true}
	r := x.r.WithContext(withAsking(x.r.Context(), &a))
	response, err := checked(x.fetch(r.Context(), r))
	if err != nil {
		return failure(reason, err)
	}
	return x.relay(response, note{fwd: reason, detail: a.Detail}, Pass)
}

// passMethod forwards a request that is neither GET nor HEAD. When it succeeds and is not safe, what is stored of its
// URL, and of those that the response says it made or changed, is no longer so (RFC 9111 section 4.4).
func (x *exchange) passMethod() Outcome {
	response, err := checked(x.fetch(x.r.Context(), x.r))
	if err != nil {
		return failure(fwdMethod, err)
	}
	switch x.r.Method {
	case http.MethodOptions, http.MethodTrace:
	default:
		if response.StatusCode >= 200 && response.StatusCode < 400 {
			x.invalidate(response.Header)
		}
	}
	return x.relay(response, note{fwd: fwdMethod}, Pass)
}

func (x *exchange) invalidate(h http.Header) {
	x.forget(x.key)
	names := groups(h["Cache-Group-Invalidation"])
	for _, name := range names {
		x.c.Purge(Purge{Service: x.key.Service, Group: name, Origin: x.key.origin()})
	}
	if len(names) > 0 && x.policy.GroupsInvalidated != nil {
		x.policy.GroupsInvalidated(x.key.origin(), names)
	}
	base := &url.URL{Scheme: x.key.Scheme, Host: x.key.authority(), Path: "/"}
	if u, err := url.ParseRequestURI(x.key.Path); err == nil {
		base.Path, base.RawPath = u.Path, u.RawPath
	}
	for _, name := range [...]string{"Location", "Content-Location"} {
		ref, err := base.Parse(h.Get(name))
		if err != nil || h.Get(name) == "" {
			continue
		}
		path := ref.EscapedPath()
		if x.policy.PathOf != nil {
			if form, ok := x.policy.PathOf(ref); ok {
				path = form
			}
		}
		k := KeyOf(Request{Service: x.key.Service, Scheme: ref.Scheme, Host: ref.Host, Path: path, RawQuery: ref.RawQuery})
		if k.Scheme == x.key.Scheme && k.Host == x.key.Host && k.Port == x.key.Port && k != x.key {
			x.forget(k)
		}
	}
}

func (x *exchange) forget(k Key) {
	x.c.store.purge(k.url(), false, x.c.now())
	if x.policy.Invalidated != nil {
		x.policy.Invalidated(k.Path, k.Query)
	}
}
