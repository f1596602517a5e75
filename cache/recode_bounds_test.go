package cache

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// vast makes much of little.
type vast struct{ made int }

func (*vast) Recodes(_ int, h http.Header, _ int64, coding string) bool {
	return h.Get("Content-Encoding") != "" && coding == ""
}

func (v *vast) Recode(resp *http.Response, _ string) *http.Response {
	v.made++
	resp.Header.Del("Content-Length")
	resp.Header.Del("Content-Encoding")
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", 256<<20))), -1
	return resp
}

// An object whose other coding is too large to store is not recoded for a byte of it time and again.
func TestVastObjectIsRecodedForPartsOnce(t *testing.T) {
	b, r := newBench(t), &vast{}
	b.policy.Recoder = r
	b.answers(200, "small", cacheable, varies, "Content-Encoding: gzip")
	coded(b, "gzip")
	b.answers(206, "x", cacheable, "Content-Range: bytes 0-0/268435456")
	for range 3 {
		if got := coded(b, "", "Range: bytes=0-0"); got.StatusCode != http.StatusPartialContent || got.body != "x" {
			t.Errorf("%d, %d bytes", got.StatusCode, len(got.body))
		}
	}
	if r.made > 1 {
		t.Errorf("recoded %d times", r.made)
	}
}

// Where no encoder is free, what must not ask the origin does not, and a range does not fetch the whole.
func TestRecoderIsBusy(t *testing.T) {
	busy := func() *bench {
		b := newBench(t)
		b.policy.Recoder = &coder{busy: true}
		b.answers(200, "body", cacheable, varies, "Content-Encoding: br")
		coded(b, "br")
		return b
	}
	b := busy()
	if got := coded(b, "", "Cache-Control: only-if-cached"); got.StatusCode != http.StatusGatewayTimeout || b.fetches() != 1 {
		t.Errorf("only-if-cached: %d after %d requests at the origin", got.StatusCode, b.fetches())
	}
	b = busy()
	var asked string
	b.respond(func(r *http.Request) (*http.Response, error) {
		asked = r.Header.Get("Range")
		return b.response(206, "b", cacheable, "Content-Range: bytes 0-0/4"), nil
	})
	if got := coded(b, "", "Range: bytes=0-0"); got.StatusCode != http.StatusPartialContent || asked != "bytes=0-0" {
		t.Errorf("a range: %d, the origin was asked for %q", got.StatusCode, asked)
	}
}

// Who joins a fetch that hangs waits for it as long as others do, though a sibling could be recoded.
func TestRecodingKeepsItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.Now = time.Now })
		b.policy.Recoder = &coder{}
		var hung atomic.Bool
		let := make(chan struct{})
		b.respond(func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("Accept-Encoding") == "br" && hung.CompareAndSwap(false, true) {
				<-let
			}
			return b.response(200, "body", "Cache-Control: max-age=600", varies), nil
		})
		first := make(chan reply)
		go func() { first <- coded(b, "br") }()
		synctest.Wait()
		coded(b, "")
		time.AfterFunc(40*time.Second, func() { close(let) })
		start := time.Now()
		if got := coded(b, "br"); time.Since(start) > 10*time.Second {
			t.Errorf("waited %s for %d %s", time.Since(start), got.StatusCode, got.body)
		}
		<-first
	})
}
