package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"time"

	"landfall/cache"
)

// serveCached runs the cache phase, and through it region, pool and respond.
func (x *exchange) serveCached() *refusal {
	in := x.in
	x.clean(in.Header)
	coding := ""
	if in.Header.Get("Range") == "" { // ranges are of the identity representation
		coding = x.p.o.Compressor.Negotiate(in.Header["Accept-Encoding"])
	}
	in.Header.Del("Accept-Encoding")
	if coding != "" {
		in.Header.Set("Accept-Encoding", coding)
	}
	body := watchBody(in)
	defer func() {
		x.received += body.finish(x.hangUp)
		x.mirrorBody(body)
	}()
	hints := x.w.hints()
	defer hints.stop()
	fetch := func(ctx context.Context, r *http.Request) (*http.Response, error) {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: hints.forward})
		resp, tr, err := x.fetchShared(r.WithContext(ctx), coding, body)
		if err == nil && resp.Header[headerFault] != nil { // another node's word on this answer, not on those that the cache makes of it
			tr.Fault = resp.Header.Get(headerFault)
			resp.Header.Del(headerFault)
		}
		x.trail.Store(&tr)
		if err != nil {
			return nil, err
		}
		asking := cache.AskingOf(ctx)
		inbound(resp, asking != nil && asking.Detail != "")
		return x.p.o.Compressor.Response(resp, coding), nil
	}
	view := cache.Request{
		Service: x.match.service.name, Method: in.Method, Scheme: x.head.scheme, Host: x.head.authority,
		Path: x.head.path, RawQuery: x.head.query, Header: in.Header, Policy: x.match.key, Variant: x.variant,
	}
	x.outcome = x.p.o.Cache.Serve(x.w, in, view, x.cachePolicy(), fetch)
	if x.outcome.Err != nil {
		return x.p.refusalFor(x.outcome.Err)
	}
	if x.outcome.Aborted {
		panic(http.ErrAbortHandler) // the client must see that the body is incomplete
	}
	return nil
}

func (x *exchange) cachePolicy() cache.Policy {
	c := x.match.route.Cache
	var invalidated func(path, query string)
	if x.head.hop == 0 {
		invalidated = x.invalidated
	}
	var groups func(origin string, names []string)
	if x.head.hop == 0 && x.p.o.Groups != nil {
		groups = func(origin string, names []string) { x.p.o.Groups(x.match.service.name, origin, names) }
	}
	return cache.Policy{
		GroupsInvalidated: groups, PathOf: x.match.service.pathOf,
		Peer: x.head.role != "", Invalidated: invalidated, Recoder: x.p.o.Compressor,
		Off: c.Off || x.wrote, TTL: std(c.TTL), StaleWhileRevalidate: std(c.StaleWhileRevalidate), StaleIfError: std(c.StaleIfError),
		Negative: x.match.negative, Jitter: float64(c.Jitter), RefreshAhead: float64(c.RefreshAhead), RangeFill: c.RangeFill,
	}
}

// servePeer serves a request that another node forwarded. The node that the client is connected to caches and
// compresses; here the request only meets the pool, so that a purge has one place fewer to race with.
func (x *exchange) servePeer() *refusal {
	if x.head.upgrade != "" {
		return x.serveTunnel()
	}
	body := watchBody(x.in)
	defer func() { x.received += body.finish(x.hangUp) }()
	hints := x.w.hints()
	defer hints.stop()
	ctx := httptrace.WithClientTrace(x.in.Context(), &httptrace.ClientTrace{Got1xxResponse: hints.forward})
	resp, tr, err := x.fetch(x.in.WithContext(ctx), strings.Join(x.in.Header["Accept-Encoding"], ", "), body)
	x.trail.Store(&tr)
	if err != nil {
		return x.p.refusalFor(err)
	}
	inbound(resp, false)
	x.stream(resp)
	return nil
}

// hangUp ends the reading of the request's body, for good. On HTTP/1.1, where that ends the connection, what is answered
// goes out first. On HTTP/2 it must not: a head that is sent before the response is known to have ended can't end the
// stream any more, and gRPC takes a status in such a head for none.
func (x *exchange) hangUp() {
	if x.w.wrote && x.in.ProtoMajor == 1 {
		x.w.Flush()
	}
	_ = http.NewResponseController(x.w.ResponseWriter).SetReadDeadline(time.Unix(1, 0)) // one that can't is left to its own bounds
}

// stream sends a response on as it comes: flushed after every read when its length is not known, trailers last.
func (x *exchange) stream(resp *http.Response) {
	defer resp.Body.Close()
	h := x.w.Header()
	for name, values := range resp.Header {
		h[name] = values
	}
	for name := range resp.Trailer {
		h.Add("Trailer", name)
	}
	x.w.WriteHeader(resp.StatusCode)
	buf := x.p.buffers.Get().(*[]byte)
	defer x.p.buffers.Put(buf)
	if err := copyFlushing(x.w, resp.Body, *buf, resp.ContentLength < 0); err != nil {
		x.outcome.Aborted = true
		panic(http.ErrAbortHandler)
	}
	for name, values := range resp.Trailer {
		h[http.TrailerPrefix+name] = values
	}
}

func copyFlushing(w *responseWriter, body io.Reader, buf []byte, flush bool) error {
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			if flush {
				w.Flush()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// purge answers the PURGE method: from the addresses that the service allows, on every node. Soft-Purge: 1 makes it soft.
func (x *exchange) purge() *refusal {
	allowed := false
	for _, p := range x.match.service.config.Purgers {
		allowed = allowed || p.Contains(x.head.client)
	}
	if !allowed {
		return refused(forbidden, "purging is not allowed from this address")
	}
	url := x.head.scheme + "://" + x.head.authority + x.head.uri()
	ctx, cancel := context.WithTimeout(x.in.Context(), purgeTimeout)
	defer cancel()
	removed, missing, err := x.p.o.Purger.PurgeURL(ctx, x.match.service.name, url, x.in.Header.Get("Soft-Purge") == "1")
	if err != nil {
		return &refusal{reason: badGateway, text: "the purge could not be stored", cause: err}
	}
	writePurged(x.w, removed, missing)
	return nil
}

const purgeTimeout = 10 * time.Second

// errNoHijack tells that a connection can't be taken over: HTTP/2 has no Upgrade.
var errNoHijack = errors.New("this connection can't be upgraded")

// hintForwarder passes informational responses (103 Early Hints and its like) on to the client while its final head has
// not begun. The response may come to a fetch that has no client, or outlives it, hence the lock.
type hintForwarder struct{ w *responseWriter }

func (f hintForwarder) forward(code int, header textproto.MIMEHeader) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.w.begun || f.w.done || code == http.StatusContinue || code == http.StatusSwitchingProtocols {
		return nil // the server itself answers Expect: 100-continue
	}
	hint := http.Header(header).Clone()
	stripHopByHop(hint)
	stripInternal(hint)
	h := f.w.ResponseWriter.Header() // what is in it already is for the final head
	kept := h.Clone()
	clear(h)
	maps.Copy(h, hint)
	f.w.ResponseWriter.WriteHeader(code)
	clear(h)
	maps.Copy(h, kept)
	return nil
}

func (f hintForwarder) stop() {
	f.w.mu.Lock()
	f.w.done = true
	f.w.mu.Unlock()
}
