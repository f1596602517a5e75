package upstream

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// TimeoutHeader tells an origin how many milliseconds it has left to answer, where the route has a total timeout or the
// client gave one: work that nobody waits for any more need not be done.
const TimeoutHeader = "X-Request-Timeout-Ms"

// withDeadline tells the origin what time is left, in a header field of its own copy of the header.
func withDeadline(ctx context.Context, r *http.Request) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return
	}
	left := max(time.Until(deadline), time.Millisecond)
	r.Header = r.Header.Clone()
	r.Header[TimeoutHeader] = []string{strconv.FormatInt(left.Milliseconds(), 10)}
	if isGRPC(r) {
		r.Header["Grpc-Timeout"] = []string{strconv.FormatInt(left.Milliseconds(), 10) + "m"}
	}
}

// isGRPC tells a gRPC request (gRPC over HTTP/2, Requests).
func isGRPC(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	return kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+") || strings.HasPrefix(kind, "application/grpc;")
}

// grpcTimeout reads a grpc-timeout: up to 8 digits and a unit. 0 when there is none, or it can't be read.
func grpcTimeout(value string) time.Duration {
	if len(value) < 2 || len(value) > 9 {
		return 0
	}
	n, err := strconv.ParseUint(value[:len(value)-1], 10, 32)
	if err != nil {
		return 0
	}
	unit := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[value[len(value)-1]]
	const most = 365 * 24 * time.Hour
	if unit == 0 || n == 0 || n > uint64(most/unit) {
		return 0
	}
	return time.Duration(n) * unit
}
