package cache

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// requirement is a MUST or SHOULD of RFC 9111 that binds a shared cache, with a check of it. Those that come down to one
// request after another are rows of TestRules, by the same section numbers.
type requirement struct {
	section, says string
	check         func(b *bench) (ok bool)
}

// second tells what became of a request after another one like it.
func second(b *bench, wait time.Duration, lines ...string) reply {
	b.get("http://a.test/", lines...)
	b.settled()
	b.clock.add(wait)
	return b.get("http://a.test/", lines...)
}

func hits(b *bench, lines ...string) bool {
	b.answers(200, "body", lines...)
	return second(b, 0).Result == Hit
}

func requirements() []requirement {
	return slices.Concat(storing(), partial(), reusing(), validating(), restricting(), fields())
}

// storing are sections 3 and 4.4.
func storing() []requirement {
	return []requirement{
		{"3", "MUST NOT store unless the method is understood", func(b *bench) bool {
			b.answers(200, "body", cacheable)
			b.do("POST", "http://a.test/", "x")
			b.do("FROB", "http://a.test/", "")
			return b.get("http://a.test/").Result == Miss
		}},
		{"3", "MUST NOT store unless the status is final", func(b *bench) bool {
			b.answers(199, "", cacheable)
			return b.get("http://a.test/").Err != nil && b.cache.Stats().Objects == 0
		}},
		{"3", "MUST NOT store a 206 or 304 that it does not understand how to", func(b *bench) bool {
			b.answers(304, "", cacheable)
			b.get("http://a.test/304")
			b.answers(206, "bo", cacheable, "Content-Range: bytes 0-1/4")
			b.get("http://a.test/206", "Range: bytes=0-1")
			return b.cache.Stats().Objects == 0
		}},
		{"3.1", "MUST include all response header fields, unknown ones too", func(b *bench) bool {
			b.answers(200, "body", cacheable, "X-New: 1", "Content-Location: /x", "Warning: 199 - x")
			got := second(b, 0).Header
			return got.Get("X-New") == "1" && got.Get("Content-Location") == "/x" && got.Get("Warning") != ""
		}},
		{"3.1", "MUST remove Connection, what it lists, and proxies' fields before forwarding from the store", func(b *bench) bool {
			b.answers(200, "body", cacheable, "Connection: X-Hop", "X-Hop: 1", "Proxy-Authenticate: x", "Proxy-Authentication-Info: x", "Proxy-Authorization: x")
			got := second(b, 0)
			for _, name := range []string{"Connection", "X-Hop", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization"} {
				if got.Header[name] != nil {
					return false
				}
			}
			return got.Result == Hit
		}},
		{"3.2", "MUST add the fields of a 304 to the stored response, but for Content-Length and those of 3.1", func(b *bench) bool {
			b.answers(200, "body", "Cache-Control: max-age=10", `Etag: "1"`, "X-A: old", "X-B: kept", "Content-Type: text/plain")
			b.get("http://a.test/")
			b.clock.add(time.Minute)
			b.answers(304, "", "Cache-Control: max-age=100", `Etag: "1"`, "X-A: new", "Content-Length: 999", "Connection: X-C", "X-C: 1")
			b.get("http://a.test/")
			got := b.get("http://a.test/")
			return got.Result == Hit && got.Header.Get("X-A") == "new" && got.Header.Get("X-B") == "kept" && got.Header.Get("Content-Length") == "4" && got.Header["X-C"] == nil
		}},
		{"3.3", "MUST NOT use an incomplete response for a full request", func(b *bench) bool {
			b.respond(func(*http.Request) (*http.Response, error) {
				res := b.response(200, "bo", cacheable, "Content-Length: 4")
				res.ContentLength = 4
				return res, nil
			})
			first := b.get("http://a.test/")
			b.settled()
			b.answers(200, "body", cacheable)
			return first.Aborted && b.get("http://a.test/").body == "body"
		}},
		{"4.4", "MUST invalidate the target URI on a non-error response to an unsafe method", func(b *bench) bool {
			for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "FROB"} {
				for _, status := range []int{200, 201, 303} {
					b.answers(200, "body", cacheable)
					b.get("http://a.test/")
					b.answers(status, "", "X: y")
					b.do(method, "http://a.test/", "x")
					b.answers(200, "body", cacheable)
					if b.get("http://a.test/").Result != Miss {
						return false
					}
				}
			}
			return true
		}},
		{"4.4", "MUST NOT invalidate on an error, or for a safe method", func(b *bench) bool {
			b.answers(200, "body", cacheable)
			b.get("http://a.test/")
			b.answers(403, "")
			b.do("POST", "http://a.test/", "x")
			b.answers(204, "")
			b.do("OPTIONS", "http://a.test/", "")
			return b.get("http://a.test/").Result == Hit
		}},
		{"4.4", "MUST NOT invalidate a Location or Content-Location of another origin", func(b *bench) bool {
			b.answers(200, "body", cacheable)
			b.get("http://b.test/")
			b.get("http://a.test/x")
			b.answers(200, "", "Location: http://b.test/", "Content-Location: /x")
			b.do("POST", "http://a.test/", "x")
			b.answers(200, "body", cacheable)
			return b.get("http://b.test/").Result == Hit && b.get("http://a.test/x").Result == Miss
		}},
	}
}

// reusing is section 4.
func reusing() []requirement {
	return []requirement{
		{"4", "MUST NOT reuse for another URI or method", func(b *bench) bool {
			return hits(b, cacheable) && b.get("http://a.test/?").Result == Hit && b.get("http://a.test/x").Result == Miss && b.do("POST", "http://a.test/", "x").Result == Pass
		}},
		{"4", "MUST generate an Age field for what it reuses without validation", func(b *bench) bool {
			b.answers(200, "body", cacheable)
			return second(b, 7*time.Second).Header.Get("Age") == "7"
		}},
		{"4", "MUST write unsafe requests through before it answers", func(b *bench) bool {
			b.answers(200, "body", cacheable)
			b.get("http://a.test/")
			return b.do("PUT", "http://a.test/", "x").Result == Pass && b.fetches() == 2
		}},
		{"4", "MUST use the most recent of several that match, by Date", func(b *bench) bool {
			b.answers(200, "old", cacheable, "Vary: X-A", "Date: Sun, 01 Mar 2026 11:59:00 GMT")
			b.get("http://a.test/", "X-A: 1", "X-B: 1")
			b.answers(200, "new", cacheable, "Vary: X-B")
			b.get("http://a.test/", "X-A: 2", "X-B: 1")
			return b.get("http://a.test/", "X-A: 1", "X-B: 1").body == "new"
		}},
		{"4.1", "MUST NOT use a response without validation unless all fields that Vary names match", func(b *bench) bool {
			b.answers(200, "body", cacheable, "Vary: X-A, X-B")
			b.get("http://a.test/", "X-A: 1", "X-B: 1")
			return b.get("http://a.test/", "X-A: 1", "X-B: 2").Result == Miss && b.get("http://a.test/", "X-B: 1").Result == Miss && b.get("http://a.test/", "X-A: 1", "X-B: 1").Result == Hit
		}},
		{"4.2", "SHOULD read dates in any letter case, and take another zone than GMT for invalid", func(b *bench) bool {
			return hits(b, "Expires: mon, 02 mar 2026 12:00:00 gmt") && !hits(newBench(b.t), "Expires: Monday, 02-Mar-26 12:00:00 EST")
		}},
		{"4.2.1", "a response with conflicting freshness is stale or has the least (encouraged)", func(b *bench) bool {
			b.answers(200, "body", "Cache-Control: max-age=10, max-age=100")
			return second(b, 20*time.Second).Result != Hit
		}},
		{"4.2.2", "MUST NOT use heuristics when an explicit time is there", func(b *bench) bool {
			b.policy.TTL = ptr(time.Hour)
			b.answers(200, "body", "Expires: 0", `Etag: "1"`)
			return second(b, 0).Result != Hit
		}},
		{"4.2.3", "MUST calculate the age by the formula", func(b *bench) bool {
			b.respond(func(*http.Request) (*http.Response, error) {
				b.clock.add(3 * time.Second) // the response's delay
				return b.response(200, "body", cacheable, "Age: 10", "Date: "+b.clock.Now().Format(http.TimeFormat)), nil
			})
			return second(b, 5*time.Second).Header.Get("Age") == "18"
		}},
		{"4.2.4", "MUST NOT serve stale where the response forbids it", func(b *bench) bool {
			for _, d := range []string{"no-cache", "must-revalidate", "proxy-revalidate", "s-maxage=10"} {
				n := newBench(b.t)
				n.policy.StaleIfError = ptr(time.Hour)
				n.answers(200, "body", "Cache-Control: max-age=10, "+d, `Etag: "1"`)
				n.get("http://a.test/")
				n.clock.add(time.Minute)
				n.respond(func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("disconnected") })
				if n.get("http://a.test/").Err == nil {
					return false
				}
			}
			return true
		}},
		{"4.3.1", "MUST send the entity tag, SHOULD send Last-Modified when it validates", func(b *bench) bool {
			b.answers(200, "body", "Cache-Control: max-age=1", `Etag: W/"1"`, lm)
			second(b, time.Minute)
			return b.last().Header.Get("If-None-Match") == `W/"1"` && b.last().Header.Get("If-Modified-Since") == strings.TrimPrefix(lm, "Last-Modified: ")
		}},
		{"4.3.2", "MUST NOT evaluate If-Match and If-Unmodified-Since, and let If-None-Match come before If-Modified-Since", func(b *bench) bool {
			hits(b, cacheable, `Etag: "1"`, lm)
			since := "If-Modified-Since: Mon, 02 Mar 2026 00:00:00 GMT"
			return b.get("http://a.test/", `If-Match: "2"`, "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT").StatusCode == 200 &&
				b.get("http://a.test/", `If-None-Match: "2"`, since).StatusCode == 200 && b.get("http://a.test/", since).StatusCode == 304
		}},
		{"4.3.3", "MUST use a full response to a validation, and may serve stale for a 5xx", func(b *bench) bool {
			b.answers(200, "old", "Cache-Control: max-age=1, stale-if-error=100", `Etag: "1"`)
			b.get("http://a.test/")
			b.clock.add(10 * time.Second)
			b.answers(503, "down")
			stale := b.get("http://a.test/")
			b.clock.add(10 * time.Second)
			b.answers(200, "new", cacheable)
			return stale.body == "old" && b.get("http://a.test/").body == "new"
		}},
		{"4.3.4", "MUST NOT take a 304 with another strong validator for a confirmation", func(b *bench) bool {
			b.answers(200, "old", "Cache-Control: max-age=1", `Etag: "1"`)
			b.get("http://a.test/")
			b.clock.add(time.Minute)
			b.respond(func(r *http.Request) (*http.Response, error) {
				if r.Header.Get("If-None-Match") != "" {
					return b.response(304, "", `Etag: "2"`), nil
				}
				return b.response(200, "new", cacheable), nil
			})
			return b.get("http://a.test/").body == "new"
		}},
	}
}

// fields is section 5.
func fields() []requirement {
	return []requirement{
		{"5.1", "SHOULD use the first of several ages, and ignore an invalid one", func(b *bench) bool {
			b.answers(200, "body", cacheable, "Age: 3", "Age: 99")
			other := newBench(b.t)
			other.answers(200, "body", cacheable, "Age: x")
			return second(b, 0).Header.Get("Age") == "3" && second(other, 0).Header.Get("Age") == "0"
		}},
		{"5.2", "MUST pass directives on, and ignore those it does not know", func(b *bench) bool {
			b.answers(200, "body", "Cache-Control: max-age=60, community=\"UCI\", new")
			got := second(b, 0)
			return got.Result == Hit && got.Header.Get("Cache-Control") == `max-age=60, community="UCI", new`
		}},
		{"5.2", "SHOULD take an argument as a token or a quoted string", func(b *bench) bool {
			return hits(b, `Cache-Control: max-age="60"`) && hits(newBench(b.t), "Cache-Control: MAX-AGE=60")
		}},
		{"5.2.1.7", "SHOULD answer only-if-cached with what is stored, or 504", func(b *bench) bool {
			none := b.get("http://a.test/", "Cache-Control: only-if-cached")
			hits(b, cacheable)
			return none.StatusCode == 504 && b.get("http://a.test/", "Cache-Control: only-if-cached").Result == Hit
		}},
		{"5.2.2.2", "must-revalidate: MUST answer with an error when the origin can't be reached", func(b *bench) bool {
			b.policy.StaleWhileRevalidate, b.policy.StaleIfError = ptr(time.Hour), ptr(time.Hour)
			b.answers(200, "body", "Cache-Control: max-age=1, must-revalidate", lm)
			b.get("http://a.test/")
			b.clock.add(time.Minute)
			b.respond(func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("disconnected") })
			return b.get("http://a.test/").Err != nil
		}},
		{"5.2.2.4", "no-cache: MUST NOT be reused without validation", func(b *bench) bool { return !hits(b, "Cache-Control: no-cache, max-age=60", lm) }},
		{"5.2.2.5", "no-store: MUST NOT be stored", func(b *bench) bool {
			return !hits(b, "Cache-Control: no-store, max-age=60") && b.cache.Stats().Objects == 0
		}},
		{"5.2.2.7", "private: a shared cache MUST NOT store it", func(b *bench) bool {
			return !hits(b, "Cache-Control: private, max-age=60") && b.cache.Stats().Objects == 0
		}},
		{"5.2.2.10", "s-maxage overrides max-age and Expires for a shared cache", func(b *bench) bool {
			return hits(b, "Cache-Control: max-age=0, s-maxage=60", "Expires: 0")
		}},
		{"5.3", "MUST take an invalid Expires for the past, and ignore Expires beside max-age", func(b *bench) bool {
			return !hits(b, "Expires: tomorrow") && hits(newBench(b.t), "Expires: tomorrow", "Cache-Control: max-age=60")
		}},
	}
}

func TestRequirements(t *testing.T) {
	for _, r := range requirements() {
		t.Run(r.section+" "+r.says, func(t *testing.T) {
			if !r.check(newBench(t)) {
				t.Errorf("RFC 9111 section %s: a shared cache %s", r.section, r.says)
			}
		})
	}
}
