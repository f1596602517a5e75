package cache

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Requirements of RFC 9111 that are not rows here, and why:
//
//   - 3.3, 3.4 on combining: a 206 is never stored, so nothing is combined, and no incomplete response is there to be
//     completed.
//   - 4 and 5.3, caches and origins without a clock: this one has a clock.
//   - 4.2, times of a coarser resolution than HTTP's: ours is nanoseconds.
//   - 5.2, directives of a request: a fetch that may be stored is this cache's own request, not the client's, and carries
//     none of them, as they are not in the key; what passes keeps them (TestPassesDirectivesOn).
//   - 5.2.2.6, no-transform: transforming is behind Fetch; gateway/proxy has TestOriginsOwnCodings.
//   - 5.2.2.4 and 5.2.2.7 with field names: taken as without, which section 5.2 allows and which can't leak a field.

// partial is section 3.3 and 3.1 on trailers, and RFC 9110 section 15.3.7.
func partial() []requirement {
	return []requirement{
		{"1.2.2", "MUST take delta-seconds beyond its range for the greatest", func(b *bench) bool {
			b.answers(200, "body", "Cache-Control: max-age=99999999999999999999999")
			return second(b, 365*24*time.Hour).Result == Hit && !hits(newBench(b.t), "Cache-Control: max-age=60", "Age: 99999999999999999999999")
		}},
		{"3", "MUST NOT store with must-understand what status it does not understand", func(b *bench) bool {
			b.answers(299, "body", "Cache-Control: must-understand, max-age=60")
			got := second(b, 0).Result
			b.answers(299, "body", "Cache-Control: max-age=60")
			return got != Hit && second(b, 0).Result == Hit
		}},
		{"3", "MUST NOT store unless something allows it: no freshness of any kind, public alone", func(b *bench) bool {
			return !hits(b) && !hits(newBench(b.t), "Cache-Control: public") && !hits(newBench(b.t), lm, `Etag: "1"`)
		}},
		{"3.1", "MUST NOT combine trailer fields with header fields", func(b *bench) bool {
			b.respond(func(*http.Request) (*http.Response, error) {
				res := b.response(200, "body", cacheable)
				res.Header.Del("Content-Length")
				res.ContentLength, res.Trailer = -1, http.Header{"X-T": {"1"}}
				return res, nil
			})
			got := second(b, 0)
			return got.Header["X-T"] == nil
		}},
		{"3.3", "MUST NOT send a part without marking it as 206, with where it is from", func(b *bench) bool {
			hits(b, cacheable, `Etag: "1"`)
			got := b.get("http://a.test/", "Range: bytes=1-2")
			return got.StatusCode == 206 && got.body == "od" && got.Header.Get("Content-Range") == "bytes 1-2/4"
		}},
		{"9110 15.3.7", "MUST send with a 206 the fields of the 200, SHOULD give one range not as several, MUST NOT have Content-Range above several", func(b *bench) bool {
			hits(b, cacheable, `Etag: "1"`, "Vary: X-A", "Expires: Mon, 02 Mar 2026 12:00:00 GMT", "Content-Location: /x")
			one, several := b.get("http://a.test/", "Range: bytes=0-0, 99-"), b.get("http://a.test/", "Range: bytes=0-0, 2-3")
			for _, name := range []string{"Date", "Cache-Control", "Etag", "Expires", "Content-Location", "Vary"} {
				if one.Header.Get(name) == "" || several.Header.Get(name) == "" {
					return false
				}
			}
			return one.Header.Get("Content-Range") == "bytes 0-0/4" && several.Header["Content-Range"] == nil
		}},
		{"9110 14.2", "MUST ignore Range with another method than GET, and If-Range without Range", func(b *bench) bool {
			hits(b, cacheable, `Etag: "1"`)
			return b.do("HEAD", "http://a.test/", "", "Range: bytes=0-0").StatusCode == 200 && b.get("http://a.test/", `If-Range: "2"`).StatusCode == 200
		}},
		{"9110 13.1.3", "MUST ignore If-Modified-Since that is no date", func(b *bench) bool {
			hits(b, cacheable, lm)
			return b.get("http://a.test/", "If-Modified-Since: tomorrow").StatusCode == 200
		}},
		{"9110 15.4.5", "MUST send with a 304 the fields that the 200 would have had, SHOULD NOT send others about the content", func(b *bench) bool {
			hits(b, cacheable, `Etag: "1"`, "Vary: X-A", "Content-Location: /x", "Content-Type: x/y", "Content-Language: de")
			got := b.get("http://a.test/", `If-None-Match: "1"`)
			for _, name := range []string{"Date", "Cache-Control", "Etag", "Content-Location", "Vary"} {
				if got.Header.Get(name) == "" {
					return false
				}
			}
			return got.StatusCode == 304 && got.Header["Content-Type"] == nil && got.Header["Content-Length"] == nil && got.Header["Content-Language"] == nil
		}},
	}
}

// validating is more of section 4: selection, times and validation.
func validating() []requirement {
	return []requirement{
		{"3.5", "MUST NOT answer credentials from the store, or others by what was asked with them, unless allowed", func(b *bench) bool {
			for _, d := range []string{"", ", public", ", must-revalidate", ", s-maxage=60"} {
				n := newBench(b.t)
				n.answers(200, "body", "Cache-Control: max-age=60"+d)
				n.get("http://a.test/", "Authorization: x")
				if (n.get("http://a.test/").Result == Hit) != (d != "") || (n.get("http://a.test/", "Authorization: y").Result == Hit) != (d != "") {
					return false
				}
			}
			return true
		}},
		{"4.1", "SHOULD choose among those with a Vary when another lacks it", func(b *bench) bool {
			b.answers(200, "varied", cacheable, "Vary: X-A", "Date: Sun, 01 Mar 2026 11:59:00 GMT")
			b.get("http://a.test/", "X-A: 1")
			b.answers(200, "plain", cacheable)
			b.get("http://a.test/", "X-A: 2")
			return b.get("http://a.test/", "X-A: 1").body == "varied" && b.get("http://a.test/", "X-A: 3").body == "plain"
		}},
		{"4.1", "Vary: * always fails to match", func(b *bench) bool {
			return !hits(b, cacheable, "Vary: *") && !hits(newBench(b.t), cacheable, "Vary: X-A", "Vary: *")
		}},
		{"4.2", "MUST NOT let local time zones influence an age", func(b *bench) bool {
			for _, zone := range []int{-12, 0, 14} {
				n := newBench(b.t, func(o *Options) {
					now := o.Now
					o.Now = func() time.Time { return now().In(time.FixedZone("here", zone*3600)) }
				})
				n.answers(200, "body", "Expires: Sun, 01 Mar 2026 12:01:00 GMT", "Date: Sun, 01 Mar 2026 12:00:00 GMT")
				if got := second(n, 10*time.Second); got.status != "landfall; hit; ttl=50" || got.Header.Get("Age") != "10" {
					return false
				}
			}
			return true
		}},
		{"4.2.2", "MUST NOT use heuristics on a status that has none, and this one uses none at all", func(b *bench) bool {
			b.policy.TTL = ptr(time.Hour)
			b.answers(503, "down", lm)
			first := second(b, 0).Result
			n := newBench(b.t)
			n.answers(200, "body", lm)
			return first != Hit && second(n, 0).Result != Hit
		}},
		{"4.2.4", "MUST NOT serve stale unless disconnected or allowed", func(b *bench) bool {
			b.answers(200, "old", "Cache-Control: max-age=10", `Etag: "1"`)
			b.get("http://a.test/")
			b.clock.add(time.Minute)
			b.respond(func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("disconnected") })
			return b.get("http://a.test/").Err != nil
		}},
		{"4.3.1", "MUST make its validations conditional on what it has, not on what the client has", func(b *bench) bool {
			b.answers(200, "body", "Cache-Control: max-age=1", `Etag: "1"`)
			b.get("http://a.test/")
			b.clock.add(time.Minute)
			b.get("http://a.test/", `If-None-Match: "2"`)
			return b.last().Header.Get("If-None-Match") == `"1"`
		}},
		{"4.3.2", "MUST NOT evaluate conditions where nothing is stored that they could be of", func(b *bench) bool {
			b.answers(200, "body", "Cache-Control: no-store", `Etag: "1"`)
			b.do("POST", "http://a.test/", "x", `If-None-Match: "1"`)
			return b.last().Header.Get("If-None-Match") == `"1"` && b.do("PUT", "http://a.test/", "x", `If-Match: "2"`).StatusCode == 200 && b.last().Header.Get("If-Match") == `"2"`
		}},
		{"4.3.3", "MUST renew what it has by a 304, and answer the client's own condition by the result", func(b *bench) bool {
			b.answers(200, "body", "Cache-Control: max-age=1", `Etag: "1"`)
			b.get("http://a.test/")
			b.clock.add(time.Minute)
			b.answers(304, "", `Etag: "1"`, cacheable)
			got := b.get("http://a.test/", `If-None-Match: "1"`)
			return got.StatusCode == 304 && b.get("http://a.test/").Result == Hit && b.fetches() == 2
		}},
		{"4.3.4", "MUST update by a 304 without validators only a single response without any", func(b *bench) bool {
			b.answers(200, "body", "Cache-Control: max-age=1", lm)
			b.get("http://a.test/")
			b.clock.add(time.Minute)
			b.answers(304, "", cacheable)
			b.get("http://a.test/")
			return b.get("http://a.test/").Result == Hit
		}},
	}
}

// restricting is section 4.3.5 and more of section 5.
func restricting() []requirement {
	return []requirement{
		{"4.3.5", "SHOULD renew or drop what it has of a URL by a HEAD", func(b *bench) bool {
			b.answers(200, "old", "Cache-Control: max-age=1, stale-if-error=600")
			b.get("http://a.test/")
			b.clock.add(time.Minute)
			b.answers(200, "longer", cacheable)
			head := b.do("HEAD", "http://a.test/", "")
			b.settled()
			return head.Header.Get("Content-Length") == "6" && b.get("http://a.test/").body == "longer"
		}},
		{"5.2.1.5", "MUST NOT store an answer to a request with no-store", func(b *bench) bool {
			b.answers(200, "body", cacheable)
			b.get("http://a.test/", "Cache-Control: no-store")
			return b.cache.Stats().Objects == 0
		}},
		{"5.2.2.3", "SHOULD ignore no-store beside must-understand where it understands the status", func(b *bench) bool {
			return hits(b, "Cache-Control: no-store, must-understand, max-age=60") && !hits(newBench(b.t), "Cache-Control: no-store, max-age=60")
		}},
		{"5.2.2.8", "proxy-revalidate: a shared cache MUST NOT reuse it stale", func(b *bench) bool {
			b.policy.StaleWhileRevalidate = ptr(time.Hour)
			b.answers(200, "body", "Cache-Control: max-age=10, proxy-revalidate", `Etag: "1"`)
			return second(b, time.Minute).Result != Stale
		}},
		{"8246", "SHOULD NOT revalidate what is immutable while it is fresh", func(b *bench) bool {
			b.policy.RefreshAhead = 1
			b.answers(200, "body", "Cache-Control: max-age=60, immutable", `Etag: "1"`)
			got := second(b, 59*time.Second)
			b.settled()
			return got.Result == Hit && b.fetches() == 1 && strings.Contains(got.Header.Get("Cache-Control"), "immutable")
		}},
	}
}

// What passes by the store has the client's directives, and its conditions.
func TestPassesDirectivesOn(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body")
	for _, method := range []string{"POST", "HEAD"} {
		b.do(method, "http://a.test/", "", "Cache-Control: max-age=0, new=1", "Pragma: no-cache")
		if h := b.last().Header; h.Get("Cache-Control") != "max-age=0, new=1" || h.Get("Pragma") != "no-cache" {
			t.Errorf("%s: %v", method, h)
		}
	}
}
