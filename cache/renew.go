package cache

import (
	"maps"
	"net/http"
	"time"
)

// conditions makes a request ask for a confirmation of what is stored (RFC 9111 section 4.3.1).
func (o *object) conditions(request http.Header) {
	v := o.validators()
	if v.etag != "" {
		request.Set("If-None-Match", v.etag)
	}
	if !v.lastModified.IsZero() {
		request.Set("If-Modified-Since", v.lastModified.UTC().Format(http.TimeFormat))
	}
}

// confirms tells whether a 304 is about the stored response. One with another validator is not (section 4.3.4).
func (f *fill) confirms(response *http.Response) bool {
	tag := validETag(response.Header.Get("Etag"))
	its := f.prior.etag()
	return tag == "" || its == "" || weakEqual(tag, its)
}

// renew settles a fetch by 304: the stored header takes over what the 304 carries (sections 3.2 and 4.3.4), and the
// merged response is judged anew, as it may now say no-store.
func (f *fill) renew(update http.Header, received time.Time) {
	f.revalidated(confirmed)
	old := f.prior
	j := judge(answer{
		status: int(old.status), header: merge(old.header(), update), length: old.length,
		asked: f.began, received: received,
		credential: f.request.Header["Authorization"] != nil, maxObject: f.c.maxObject,
	}, f.policy)
	if j.refusal != storable {
		j.meta.prepare(merge(old.header(), update), update.Get("Date") != "")
	}
	fresh := f.c.newObject(f.key, &j.meta, f.header, old.body, born{old.born.body, f.born.last})
	fresh.used()
	f.object, f.shareable = fresh, j.shared
	if j.refusal == storable {
		if f.c.store.replace(f, old, fresh) {
			f.stored.Store(true)
			f.c.tier.put(fresh)
		}
	} else {
		f.c.remove(old)
		f.c.store.leave(fresh)
	}
	if !j.shared {
		f.c.marks.set(f.key, received, markFor)
	}
	f.settle(renewed)
}

// merge is a stored header updated by that of a 304. What the stored body depends on stays, and so does what is never
// stored.
func merge(stored, update http.Header) http.Header {
	merged := maps.Clone(stored)
	delete(merged, "Date") // without one in the 304, the time of receipt takes its place
	if update["Surrogate-Key"] != nil || update["Cache-Tag"] != nil || update[HeaderKey] != nil {
		delete(merged, HeaderKey)
	}
	for name, values := range update {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Type", "Content-Range", "Set-Cookie", "Cache-Status":
			continue
		}
		if !isHop(name) && !listedHop(update, name) {
			merged[name] = values
		}
	}
	return merged
}
