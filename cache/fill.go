package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// lagLimit is how long a reader may hold up the others of an overflowing stream.
const lagLimit = 10 * time.Second

// verdict is what a fetch's response header led to.
type verdict uint8

const (
	pending verdict = iota
	shared          // being stored; all whom it fits read it
	private         // being stored, but only for whom it was fetched
	handed          // not stored: the response goes to whom it was fetched for
	renewed         // 304: the prior object, freshened
	lost            // no response, or an error status where a stale object may be served instead
)

// fill is one fetch that may be stored. Its request is a copy and its context is not the client's, so it goes on when
// the client leaves.
type fill struct {
	c       *Cache
	key     Key
	flight  flightKey   // set by join
	header  http.Header // selects the variant
	request *http.Request
	fetch   Fetch
	policy  Policy
	asking  Asking
	prior   *object // being revalidated; nil: none
	from    *object // of another content coding, of which it is made if it still can be; nil: none
	only    bool    // it must not ask the origin if it can't be made of from
	began   time.Time
	ctx     context.Context
	cancel  context.CancelFunc
	timer   *time.Timer
	born    born    // set when it is enrolled
	url     mark    // purges of its URL since
	place   []*cell // of its service and its host
	cells   []*cell // these, and once it is ready those of the response's keys

	mu        sync.Mutex
	users     int  // requests that wait for it or read it
	expired   bool // it goes on only while it has users
	dead      bool // cancelled for want of users: not to be joined
	ownerless bool // whom it was fetched for has left

	ready chan struct{} // closed when the following are set, for good
	verdict
	recoded   bool // made of from
	meta      meta
	object    *object        // renewed: the object to serve
	shareable bool           // renewed: to others too
	response  *http.Response // handed
	status    int            // of the response; 0: none
	err       error          // lost
	owner     *reader        // shared, private: the place of whom it was fetched for

	body     io.ReadCloser
	source   *http.Response
	stream   stream
	reserved int64 // bytes of the budget
	stored   atomic.Bool
	followed atomic.Bool // somebody shared it
}

// newFill prepares a fetch for a request, which is its first user; nil when the cache is closed. Whatever of the request
// is not in its key but could change the answer is taken out, or made the same for all.
func (x *exchange) newFill(prior *object) *fill {
	if !x.c.begin() {
		return nil
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(x.r.Context()))
	r := x.r.Clone(ctx)
	r.Method, r.Body, r.GetBody, r.ContentLength, r.TransferEncoding = http.MethodGet, http.NoBody, nil, 0, nil
	if r.URL != nil {
		r.URL.ForceQuery = false
		r.URL.RawQuery = x.key.Query
	}
	if host := KeyOf(Request{Scheme: x.key.Scheme, Host: r.Host}); host.Host == x.key.Host && host.Port == x.key.Port {
		r.Host = x.key.authority()
	}
	for _, name := range [...]string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range",
		"Range", "Cache-Control", "Pragma"} {
		delete(r.Header, name)
	}
	for name := range r.Header {
		if overrides(name) && !slices.Contains(x.keyed, name) {
			delete(r.Header, name)
		}
	}
	if v := r.Header["Accept-Encoding"]; len(v) > 0 && coding(r.Header) == "" && !(len(v) == 1 && v[0] == "") {
		r.Header["Accept-Encoding"] = []string{"identity"}
	}
	f := &fill{
		c: x.c, key: x.key.clone(), header: x.header.Clone(), request: r, fetch: x.fetch, policy: x.policy, prior: prior,
		began: x.c.now(), ctx: ctx, cancel: cancel, users: 1, ready: make(chan struct{}),
	}
	f.asking = Asking{Shareable: x.shareable(), Holds: prior != nil}
	f.ctx = withAsking(ctx, &f.asking)
	f.request = r.WithContext(f.ctx)
	if prior != nil {
		prior.conditions(r.Header)
	}
	f.place = x.c.placeOf(f.key)
	f.cells = f.place
	f.timer = time.AfterFunc(x.c.fillTimeout, f.expire)
	return f
}

// run makes a fetch from begin to end, in its own goroutine.
func (f *fill) run() {
	f.open()
	f.pump()
}

// attach adds a user. It fails when the fetch has been given up.
func (f *fill) attach() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return false
	}
	f.users++
	return true
}

// isJoined tells whether more than one request waits for the fetch.
func (f *fill) isJoined() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.users > 1
}

// detach takes a user away. owner: the one that it was fetched for, who has not taken what was kept for it.
func (f *fill) detach(owner bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users--
	f.endUnused()
	if !owner {
		return
	}
	f.ownerless = true
	if f.response != nil {
		f.response.Body.Close()
		f.cancel()
	}
	if f.owner != nil {
		f.stream.leave(f.owner)
	}
}

// expire ends the time in which a fetch goes on unused.
func (f *fill) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expired = true
	f.endUnused()
}

func (f *fill) endUnused() {
	if f.users == 0 && f.expired && f.verdict != handed {
		f.dead = true
		f.cancel()
	}
}

// open asks the origin and decides what becomes of the answer.
func (f *fill) open() {
	if now := f.c.now(); f.from != nil {
		if response := f.recode(now); response != nil {
			f.recoded, f.prior = true, nil
			f.decide(response, now)
			return
		}
		if f.only {
			f.prior = nil
			f.lose(now, errors.New("no encoder is free"), 0)
			return
		}
	}
	response, err := f.ask()
	if err == nil && f.prior != nil && response.StatusCode == http.StatusNotModified && !f.confirms(response) {
		// Not a confirmation of what is stored: section 4.3.4 leaves nothing but to ask again without conditions.
		discard(response)
		f.c.remove(f.prior)
		f.prior = nil
		f.request = f.request.Clone(f.ctx)
		f.request.Header.Del("If-None-Match")
		f.request.Header.Del("If-Modified-Since")
		response, err = f.ask()
	}
	received := f.c.now()
	switch {
	case err != nil:
		f.lose(received, err, 0)
	case response.StatusCode == http.StatusNotModified && f.asking.Unsure:
		discard(response)
		f.lose(received, errors.New("another node's copy is stale, too, and the origin does not answer it"), 0)
	case response.StatusCode == http.StatusNotModified && f.prior != nil:
		f.status = response.StatusCode
		discard(response)
		f.renew(response.Header, received)
	case response.StatusCode == http.StatusNotModified:
		discard(response)
		f.lose(received, errors.New("the origin answered 304 to a request without conditions; check its handling of validators"), 0)
	case isOriginError(response.StatusCode) && f.prior != nil && f.prior.mayHide(received):
		discard(response)
		f.lose(received, fmt.Errorf("the origin answered %d", response.StatusCode), response.StatusCode)
	default:
		f.decide(response, received)
	}
}

// ask calls the fetch. A panic in it must not end the process: there is no server above this goroutine to recover it.
func (f *fill) ask() (response *http.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			f.c.logger.Error("fetch panicked", "url", f.request.URL.Redacted(), "panic", p, "stack", string(debug.Stack()))
			response, err = nil, fmt.Errorf("the fetch of %s panicked: %v", f.request.URL.Redacted(), p)
		}
	}()
	f.asking.Detail, f.asking.Elsewhere, f.asking.Unsure = "", false, false // of an earlier try
	return checked(f.fetch(f.ctx, f.request))
}

// lose settles a fetch without an answer of its own. One that ended with its client says nothing of the origin.
func (f *fill) lose(now time.Time, err error, status int) {
	if f.ctx.Err() == nil {
		f.revalidated(failed)
		if f.prior != nil {
			f.prior.failedAt.Store(now.UnixNano())
		}
	}
	f.err, f.status = err, status
	f.settle(lost)
}

func (f *fill) revalidated(result string) {
	if f.prior != nil && f.prior.validatable() {
		f.c.metrics.revalidations[result].Inc()
	}
}

// decide settles a fetch that brought a response.
func (f *fill) decide(response *http.Response, received time.Time) {
	f.status = response.StatusCode
	if isOriginError(f.status) {
		f.revalidated(failed)
	} else {
		f.revalidated(changed)
	}
	policy := f.policy
	if f.recoded {
		policy.Jitter = 0
	}
	j := judge(answer{
		status: response.StatusCode, header: response.Header, length: lengthOf(response),
		trailers: len(response.Trailer) > 0, asked: f.began, received: received,
		credential: f.request.Header["Authorization"] != nil, maxObject: f.c.maxObject,
	}, policy)
	if f.recoded {
		j.meta.inherit(f.from, received)
	}
	if j.refusal == storable && !f.asking.Unsure && response.StatusCode == http.StatusOK && !f.c.searches.learn(f.key, response.Header) {
		j.refusal = bySearch
	}
	switch {
	case f.asking.Unsure:
		j.refusal = byStale
	case f.asking.Elsewhere && f.prior == nil && j.refusal == storable && !f.isJoined():
		j.refusal = byPeer
	}
	if j.refusal == storable && !f.reserveFor(&j.meta) {
		j.refusal = byMemory
	}
	if j.refusal != storable {
		f.hand(response, received, j.refusal)
		return
	}
	f.meta, f.source = j.meta, response
	f.cells = slices.Clip(f.cells)
	for _, key := range f.meta.keys {
		f.cells = append(f.cells, f.c.generations.hold(cellName{f.key.Service, ofKey, key}))
	}
	for _, name := range f.meta.groups {
		f.cells = append(f.cells, f.c.generations.hold(f.key.group(name)))
	}
	f.body = response.Body
	f.mu.Lock()
	if !f.ownerless {
		f.owner = f.stream.join()
	}
	f.mu.Unlock()
	if j.shared {
		f.settle(shared)
		return
	}
	f.c.marks.set(f.key, received, markFor)
	f.c.store.unshare(f)
	f.settle(private)
}

// hand settles a fetch whose response is not stored. What it was to replace is no longer what the origin gives.
func (f *fill) hand(response *http.Response, received time.Time, why refusal) {
	f.c.logger.LogAttrs(f.ctx, slog.LevelDebug, "response not stored",
		slog.String("host", f.key.Host), slog.String("path", f.key.Path),
		slog.Int("status", response.StatusCode), slog.String("reason", string(why)))
	switch {
	case why == byPeer, f.recoded: // others may have it from there as well
	case response.StatusCode >= 500, response.StatusCode == http.StatusTooManyRequests, why == byStale:
		f.c.marks.set(f.key, received, markErrorFor) // of the origin's state, not of what it has
		if f.prior != nil {
			f.prior.failedAt.Store(received.UnixNano())
		}
	default:
		f.c.marks.set(f.key, received, markFor)
		if f.prior != nil {
			f.c.remove(f.prior)
		}
	}
	f.mu.Lock()
	gone := f.ownerless
	if !gone {
		f.response = response
	}
	f.mu.Unlock()
	if gone {
		response.Body.Close()
		f.cancel()
	}
	f.settle(handed)
}

// settle lets those who wait see the verdict. Where nothing is left to be done but by them, the fetch ends first, so
// that who comes later doesn't join it.
func (f *fill) settle(v verdict) {
	if v != shared && v != private {
		f.c.store.forget(f)
	}
	f.mu.Lock()
	f.verdict = v
	f.mu.Unlock()
	close(f.ready)
}

// pump reads the body to its end and stores the object.
func (f *fill) pump() {
	defer f.end()
	if f.verdict != shared && f.verdict != private {
		return
	}
	held, err := f.copy()
	var trailer http.Header
	if err == nil {
		trailer = f.source.Trailer
		if len(trailer) == 0 && !f.stream.overflow {
			f.store(held)
		}
	}
	if f.recoded && f.stream.overflow {
		f.from.set(isVast)
	}
	f.body.Close()
	f.c.store.unshare(f)
	f.stream.finish(held, err, trailer)
	if err != nil && !errors.Is(err, errNobody) && !errors.Is(err, context.Canceled) {
		f.c.logger.Warn("a response body failed and was not stored", "host", f.key.Host, "path", f.key.Path, "error", err)
	}
}

// store puts the finished object into the store.
func (f *fill) store(held int) {
	body, m := f.stream.body(held), f.meta
	if m.length < 0 {
		m.fields = slices.Clone(m.fields) // readers of the stream share the old ones
		var n int64
		for _, c := range body {
			n += int64(len(c))
		}
		m.setLength(n)
	}
	o := f.c.newObject(f.key, &m, f.header, body, f.born)
	f.c.store.budget.commit(o, f.reserved)
	f.reserved = 0
	if f.c.store.put(f, o) {
		f.stored.Store(true)
		f.c.tier.put(o)
		if f.verdict == shared {
			f.c.marks.clear(f.key)
		}
	}
}

// end gives back all that a fetch holds. A response that was handed on keeps the context until it is read.
func (f *fill) end() {
	f.timer.Stop()
	if f.reserved > 0 {
		f.c.store.budget.release(f.reserved)
		f.reserved = 0
	}
	f.c.store.forget(f)
	if f.verdict != handed {
		f.cancel()
	}
	for _, c := range f.cells {
		f.c.generations.release(c)
	}
	f.c.running.Done()
}

// checked makes a fetch's results safe to use.
func checked(response *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	if response == nil {
		return nil, errors.New("the fetch returned neither a response nor an error")
	}
	if response.Body == nil {
		response.Body = http.NoBody
	}
	if response.StatusCode < 200 || response.StatusCode > 999 {
		response.Body.Close()
		return nil, fmt.Errorf("the fetch returned status %d, which is not that of a final response", response.StatusCode)
	}
	if response.Header == nil {
		response.Header = make(http.Header)
	}
	return response, nil
}

func discard(response *http.Response) {
	// A short body is read so that its connection can be used again.
	io.CopyN(io.Discard, response.Body, 4<<10)
	response.Body.Close()
}
