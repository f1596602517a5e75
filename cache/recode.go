package cache

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"
)

// Recoder gives a stored response in another content coding, so that clients with different Accept-Encoding cost one
// request at the origin. It is safe for concurrent use.
type Recoder interface {
	// Recodes tells whether Recode can make, of a response with this status, header and length, the one that the origin's
	// answer to a request for coding would have become ("": none). It changes nothing.
	Recodes(status int, h http.Header, length int64, coding string) bool
	// Recode makes it, of a response that it may change. nil: it can't now.
	Recode(resp *http.Response, coding string) *http.Response
}

// detailRecoded tells that a hit was made of another coding's variant.
const detailRecoded = "recoded"

// source is a stored response of which the variant for this request can be made without the origin: one that could answer
// it now but for its content coding, and stays fresh for longer than least.
func (x *exchange) source(least time.Duration) *object {
	if x.policy.Recoder == nil || x.request.noStore {
		return nil
	}
	o := x.shard.sibling(x.hash, &x.key, x.header)
	if o == nil || !o.isFresh(x.now) || o.remaining(x.now) <= least || x.c.unsure(o) || !o.is(isLicensed) && x.header["Authorization"] != nil {
		return nil
	}
	if o.is(isVast) && (x.r.Method == http.MethodHead || x.header["Range"] != nil) {
		return nil // all of it would be recoded for a part of it, each time
	}
	if !x.policy.Recoder.Recodes(int(o.status), o.header(), o.length, coding(x.header)) {
		return nil
	}
	return o
}

// sibling is the newest variant that differs from what a request selects by content coding alone.
func (sh *shard) sibling(hash uint64, key *Key, header http.Header) (best *object) {
	for o := sh.index.first(hash); o != nil; o = o.chain.Load() {
		if o.hash == hash && o.isSibling(key, header) && !o.purged() && (best == nil || o.date().After(best.date())) {
			best = o
		}
	}
	return best
}

// isSibling tells whether the object is of a key, and would be the variant for a request if that asked for its coding.
func (o *object) isSibling(k *Key, request http.Header) (varies bool) {
	c := cursor{s: o.head}
	if o.keyAt(&c) != *k {
		return false
	}
	for range c.count() {
		name, value, present := c.selecting()
		if name == "Accept-Encoding" {
			varies = true
		} else if v, have := fieldValue(request, name); v != value || have != present {
			return false
		}
	}
	return varies
}

// recode answers from another coding's variant, which is recoded once, stored, and shared by all who wait for it.
func (x *exchange) recode(stale *object, reason string) (out Outcome, done bool) {
	src := x.source(0)
	if src == nil {
		return out, false
	}
	f, leads, o := x.c.store.join(x.key, x.header, x.gen, stale, func() *fill { return x.newRecoding(stale, src) })
	switch {
	case o != nil:
		x.now = x.c.now()
		return x.reuse(o)
	case f == nil:
		return out, false
	case leads:
		f.only = x.request.onlyIfCached || x.r.Method == http.MethodHead || x.header["Range"] != nil
		go f.run()
	case f.from == nil: // it asks the origin: forward knows how long to wait for it
		f.detach(false)
		return out, false
	}
	select {
	case <-f.ready:
	case <-x.r.Context().Done():
		f.detach(leads)
		return failure(reason, context.Cause(x.r.Context())), true
	}
	if !f.recoded {
		if leads && !f.only {
			return x.conclude(f, reason), true
		}
		f.detach(false)
		return out, false // forward joins it, or goes on its own
	}
	defer f.detach(false)
	x.now = x.c.now()
	n := note{hit: true, ttl: floorSeconds(src.remaining(x.now)), detail: detailRecoded}
	place := f.owner
	switch {
	case f.verdict == handed && leads:
		defer f.cancel()
		return x.relay(f.response, n, Hit), true
	case !leads && f.verdict == shared && x.fits(f, f.meta.varyNames, f.meta.licensed):
		place = f.stream.join()
	case !leads:
		place = nil
	}
	if place == nil {
		return out, false
	}
	if f.spoiled(f.cells, x.gen) {
		f.stream.leave(place)
		return out, false
	}
	if x.header["Range"] != nil { // parts of it are cut of the whole
		if x.await(f, place) != nil {
			f.stream.leave(place)
			return out, false
		}
		if o := x.shard.lookup(x.hash, &x.key, x.header).object; o != nil {
			if out, done = x.reuse(o); done {
				f.stream.leave(place)
				return out, true
			}
		}
		f.stream.leave(place)
		if place = f.stream.join(); place == nil {
			return out, false
		}
	}
	return x.writeStream(f, place, n, Hit), true
}

// await waits until a stream has ended.
func (x *exchange) await(f *fill, place *reader) error {
	for consumed := 0; ; {
		b, more, err := f.stream.next(place, consumed)
		switch consumed = len(b); {
		case len(b) > 0:
		case more == nil:
			return err
		default:
			select {
			case <-more:
			case <-x.r.Context().Done():
				return x.r.Context().Err()
			}
		}
	}
}

// newRecoding is newFill for a variant that is made of another, if that is still possible when it begins.
func (x *exchange) newRecoding(prior, src *object) *fill {
	f := x.newFill(prior)
	if f != nil {
		f.from = src
	}
	return f
}

// recode makes the response of another coding's variant. It comes after the fetch was enrolled: purges that were before
// have not taken that variant, and those that come later find the fetch. nil: the origin is to be asked.
func (f *fill) recode(now time.Time) *http.Response {
	o := f.from
	if o == nil || o.purged() || !o.isFresh(now) {
		return nil
	}
	parts := make([]io.Reader, len(o.body))
	for i, chunk := range o.body {
		parts[i] = bytes.NewReader(chunk)
	}
	resp := f.policy.Recoder.Recode(&http.Response{
		StatusCode: int(o.status), Header: o.header(), ContentLength: o.length, Body: io.NopCloser(io.MultiReader(parts...)),
	}, coding(f.header))
	if resp != nil {
		resp.Header["Age"] = []string{formatAge(o.age(now))}
	}
	return resp
}

// inherit gives a recoded response the times of what it was made of.
func (m *meta) inherit(o *object, now time.Time) {
	m.received, m.initialAge, m.fresh = now, o.age(now), o.fresh
}
