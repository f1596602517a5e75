package cache

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// coder is a Recoder whose codings are a prefix.
type coder struct {
	begun chan struct{} // told of each Recode; nil: isn't
	goOn  chan struct{}
	busy  bool
}

func (c *coder) Recodes(_ int, h http.Header, _ int64, coding string) bool {
	return h.Get("Content-Encoding") != coding
}

func (c *coder) Recode(resp *http.Response, coding string) *http.Response {
	if c.begun != nil {
		c.begun <- struct{}{}
		<-c.goOn
	}
	if c.busy {
		return nil
	}
	b, _ := io.ReadAll(resp.Body)
	b = bytes.TrimPrefix(b, []byte(resp.Header.Get("Content-Encoding")+":"))
	resp.Header.Del("Content-Length")
	resp.Header.Del("Content-Encoding")
	if coding != "" {
		b = append([]byte(coding+":"), b...)
		resp.Header.Set("Content-Encoding", coding)
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(b)), -1
	return resp
}

const varies = "Vary: Accept-Encoding"

func coded(b *bench, coding string, lines ...string) reply {
	if coding != "" {
		lines = append(lines, "Accept-Encoding: "+coding)
	}
	return b.get("http://a.test/", lines...)
}

// A recoded variant is as old as what it was made of, and goes stale with it.
func TestRecodedAge(t *testing.T) {
	b := newBench(t)
	b.policy.Recoder, b.policy.Jitter = &coder{}, 0.5
	b.answers(200, "body", "Cache-Control: max-age=600", varies, "Age: 10", "Surrogate-Key: k")
	coded(b, "")
	b.clock.add(20*time.Second + 400*time.Millisecond)
	want := coded(b, "").status
	got := coded(b, "br")
	if got.body != "br:body" || got.Header.Get("Age") != "30" || got.status != want+"; detail=recoded" || got.Result != Hit {
		t.Errorf("%q age %s, %s; the other's is %s", got.body, got.Header.Get("Age"), got.status, want)
	}
	b.settled()
	b.clock.add(time.Second)
	if a, b := coded(b, ""), coded(b, "br"); a.status != b.status || a.Header.Get("Age") != b.Header.Get("Age") || b.body != "br:body" || b.Header.Get("Content-Length") != "7" {
		t.Errorf("%s and %s", a.status, b.status)
	}
	b.clock.add(time.Hour)
	b.answers(200, "new", cacheable, varies)
	if got := coded(b, "br"); got.body != "new" || b.fetches() != 2 {
		t.Errorf("stale: %q after %d fetches", got.body, b.fetches())
	}
}

// What may not be reused is not recoded either.
func TestNothingIsRecodedThatIsNoHit(t *testing.T) {
	for name, c := range map[string]struct {
		lines, request []string
		wait           time.Duration
	}{
		"stale":               {lines: []string{cacheable, varies}, wait: time.Hour},
		"no-cache":            {lines: []string{"Cache-Control: no-cache", `Etag: "1"`, varies}},
		"another variant":     {lines: []string{cacheable, varies + ", X-A"}, request: []string{"X-A: 1"}},
		"with credentials":    {lines: []string{cacheable, varies}, request: []string{"Authorization: x"}},
		"a no-store request":  {lines: []string{cacheable, varies}, request: []string{"Cache-Control: no-store"}},
		"without the Recoder": {lines: []string{cacheable, varies}},
	} {
		b := newBench(t)
		if name != "without the Recoder" {
			b.policy.Recoder = &coder{}
		}
		b.answers(200, "body", c.lines...)
		coded(b, "")
		b.clock.add(c.wait)
		b.settled()
		if got := coded(b, "br", c.request...); b.fetches() != 2 || strings.Contains(got.status, "recoded") {
			t.Errorf("%s: %s", name, got.status)
		}
	}
	b := newBench(t)
	b.policy.Recoder = &coder{busy: true}
	b.answers(200, "body", cacheable, varies)
	coded(b, "")
	if got := coded(b, "br"); got.Result != Miss || b.fetches() != 2 {
		t.Errorf("without an encoder: %s", got.status)
	}
}

// only-if-cached is answered by what can be made without the origin.
func TestRecodedOnlyIfCached(t *testing.T) {
	b := newBench(t)
	b.policy.Recoder = &coder{}
	b.answers(200, "body", cacheable, varies)
	coded(b, "")
	if got := coded(b, "br", "Cache-Control: only-if-cached"); got.StatusCode != 200 || b.fetches() != 1 {
		t.Errorf("%d %s", got.StatusCode, got.status)
	}
}

// A purge that comes while a variant is being made takes it, however it names it.
func TestPurgeDuringRecoding(t *testing.T) {
	for name, purge := range map[string]func(c *Cache){
		"key": func(c *Cache) { c.Purge(Purge{Service: "shop", Key: "k"}) },
		"url": func(c *Cache) { c.Purge(Purge{Service: "shop", Host: "a.test", Path: "/"}) },
		"all": func(c *Cache) { c.PurgeEverything() },
	} {
		b := newBench(t)
		r := &coder{}
		b.policy.Recoder = r
		b.answers(200, "old", cacheable, varies, "Surrogate-Key: k")
		coded(b, "")
		r.begun, r.goOn = make(chan struct{}), make(chan struct{})
		done := make(chan struct{})
		go func() { defer close(done); coded(b, "br") }()
		<-r.begun
		purge(b.cache)
		b.answers(200, "new", cacheable, varies)
		close(r.goOn)
		<-done
		b.settled()
		r.begun = nil
		if got := coded(b, "br"); got.body != "new" {
			t.Errorf("%s: %q, %s", name, got.body, got.status)
		}
	}
}

// A variant that went stale, or will soon, is made anew of one that was renewed since: one request at the origin renews
// all.
func TestRenewedBySibling(t *testing.T) {
	for name, c := range map[string]struct {
		policy Policy
		wait   time.Duration
	}{
		"stale":         {wait: 70 * time.Second},
		"revalidated":   {wait: 70 * time.Second, policy: Policy{StaleWhileRevalidate: ptr(time.Minute)}},
		"refresh ahead": {wait: 50 * time.Second, policy: Policy{RefreshAhead: 0.5}},
	} {
		b := newBench(t)
		b.policy = c.policy
		b.policy.Recoder = &coder{}
		b.answers(200, "old", "Cache-Control: max-age=60", varies, `Etag: "1"`)
		coded(b, "")
		coded(b, "br")
		b.clock.add(c.wait)
		b.answers(200, "new", "Cache-Control: max-age=60", varies, `Etag: "2"`)
		for range 2 {
			coded(b, "")
			b.settled()
		}
		for range 2 {
			coded(b, "br")
			b.settled()
		}
		if got := coded(b, "br"); got.body != "br:new" || b.fetches() != 2 {
			t.Errorf("%s: %q after %d fetches, %s", name, got.body, b.fetches(), got.status)
		}
	}
}

// What is left on disk is recoded, too.
func TestRecodedFromDisk(t *testing.T) {
	d := newOnDisk(t)
	d.answers(200, "body", cacheable, varies)
	coded(d.bench, "gzip")
	d.written()
	d.again(true)
	d.answers(200, "new", cacheable, varies)
	d.policy.Recoder = &coder{}
	if got := coded(d.bench, "br"); got.body != "br:body" || d.fetches() != 1 {
		t.Errorf("%q after %d fetches, %s", got.body, d.fetches(), got.status)
	}
}
