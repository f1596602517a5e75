package proxy

import (
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

// mirror sends a copy of the request to the service that the route names, beside the request and without a claim on it: the
// copy is made of the header alone, waits for nothing and is skipped when there is no room.
func (x *exchange) mirror() {
	m := x.match.route.Mirror
	if m == nil || x.head.hop > 0 || x.head.upgrade != "" || x.in.ContentLength != 0 || x.head.method == methodPurge ||
		rand.Float64() >= float64(m.Weight) {
		return
	}
	count := func(result string) { x.p.o.Metrics.mirrored.WithLabelValues(x.match.service.name, result).Inc() }
	pool := x.p.o.Pools[m.To]
	if pool == nil {
		count("skipped")
		return
	}
	select {
	case x.p.copies <- struct{}{}:
	default:
		count("skipped")
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.in.Context()), copyTime)
	out := x.outbound(x.in.WithContext(ctx), "", false)
	out.Body, out.GetBody, out.ContentLength = nil, nil, 0
	policy := upstream.RetryPolicy{Attempts: 1, Priority: upstream.Background, FirstByte: copyTime, Client: x.head.client}
	go func() {
		defer func() { <-x.p.copies }()
		defer cancel()
		count(sendCopy(pool, out, policy))
	}()
}

func sendCopy(pool *upstream.Pool, out *http.Request, policy upstream.RetryPolicy) (result string) {
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
