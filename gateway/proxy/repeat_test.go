package proxy

import (
	"net/http"
	"sync/atomic"
	"testing"
)

// What an origin may have seen is sent to one other region, once: regions whose origins all break do not hand it on and on.
func TestRepeatedInOneOtherRegion(t *testing.T) {
	breaking := func() (string, *atomic.Int64) {
		var n atomic.Int64
		return origin(t, func(http.ResponseWriter, *http.Request) { n.Add(1); panic(http.ErrAbortHandler) }), &n
	}
	alone, want := breaking()
	newRig(t, two(alone, alone), func(o *Options) { o.Region = "eu" }).get("GET", "/")
	eu, atEU := breaking()
	us, atUS := breaking()
	resp, _ := newPair(t, two(eu, us)).eu.get("GET", "/")
	if resp.StatusCode != http.StatusBadGateway || want.Load() == 0 || atEU.Load() != want.Load() || atUS.Load() != want.Load() {
		t.Errorf("%d after %d requests in eu and %d in us; a pool alone tries %d times", resp.StatusCode, atEU.Load(), atUS.Load(), want.Load())
	}
}
