package proxy

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"landfall/gateway/upstream"
)

// The bounds of mirroring: what a copy may cost.
const (
	maxCopies  = 64               // under way at once, of the whole node; more are skipped
	copyTime   = 10 * time.Second // after which a copy is given up
	copyAnswer = 1 << 20          // bytes of an answer that are read, so that its connection can serve again
)

// mirror decides whether a copy of the request goes to the service that the route names. A copy waits for nothing and is
// skipped when there is no room. That of a request without a body is sent at once, beside it; of one with a body when the
// request is over and its body was short enough to be kept whole, so that a copy never reads from the client.
func (x *exchange) mirror() {
	m := x.match.route.Mirror
	if m == nil || x.head.hop > 0 || x.head.upgrade != "" || x.head.method == methodPurge || rand.Float64() >= float64(m.Weight) {
		return
	}
	pool := x.p.o.Pools[m.To]
	if pool == nil {
		x.mirrored("skipped")
		return
	}
	if x.in.ContentLength == 0 {
		x.sendCopy(pool, x.copyOf(), nil)
		return
	}
	x.toMirror, x.copied = pool, x.copyOf() // the header as it is now: later phases change it
}

// mirrorBody sends the copy of a request with a body, which is over.
func (x *exchange) mirrorBody(body *bodyWatch) {
	if x.copied == nil {
		return
	}
	kept, whole := body.copied()
	if !whole {
		x.mirrored("skipped")
		return
	}
	x.sendCopy(x.toMirror, x.copied, kept)
}

func (x *exchange) mirrored(result string) {
	x.p.o.Metrics.mirrored.WithLabelValues(x.match.service.name, result).Inc()
}

// copyOf is the request as it would go to an origin, without its body.
func (x *exchange) copyOf() *http.Request {
	from := x.in.Clone(context.WithoutCancel(x.in.Context()))
	x.clean(from.Header)
	out := x.outbound(from, "", false)
	out.Body, out.GetBody, out.ContentLength, out.Trailer, out.TransferEncoding = nil, nil, 0, nil, nil
	x.shapeRequest(out)
	return out
}

func (x *exchange) sendCopy(pool *upstream.Pool, out *http.Request, body []byte) {
	l := x.p.o.Lasting
	select {
	case l.copies <- struct{}{}:
	default:
		x.mirrored("skipped")
		return
	}
	if len(body) > 0 {
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	ctx, cancel := context.WithTimeout(l.ctx, copyTime)
	policy := upstream.RetryPolicy{Attempts: 1, Priority: upstream.Background, FirstByte: copyTime, Client: x.head.client}
	count, service := x.p.o.Metrics.mirrored, x.match.service.name
	l.running.Go(func() {
		defer func() { <-l.copies }()
		defer cancel()
		count.WithLabelValues(service, sentCopy(pool, out.WithContext(ctx), policy)).Inc()
	})
}

// sentCopy sends a copy and throws its answer away.
func sentCopy(pool *upstream.Pool, out *http.Request, policy upstream.RetryPolicy) (result string) {
	resp, _, err := pool.RoundTrip(out, policy)
	if err != nil {
		return "failed"
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, copyAnswer); err != nil && err != io.EOF {
		return "failed"
	}
	return "sent"
}
