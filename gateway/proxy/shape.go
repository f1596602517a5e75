package proxy

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"landfall/configs"
)

// answeredEarly serves a preflight, which a browser sends without anything that access could ask for.
func (x *exchange) answeredEarly() bool {
	return x.match.route.CORS != nil && x.head.hop == 0 && x.preflight(x.match.route.CORS)
}

// answeredHere serves what a route answers without an origin: a redirect, a fixed response.
func (x *exchange) answeredHere() bool {
	r := x.match.route
	if x.head.hop > 0 || x.head.method == methodPurge {
		return false
	}
	switch {
	case r.Redirect != nil:
		to := strings.NewReplacer("{path}", x.head.path, "{query}", withMark(x.head.query), "{host}", x.head.host).Replace(r.Redirect.To)
		x.w.Header().Set("Location", to)
		x.w.WriteHeader(r.Redirect.Status)
	case r.Respond != nil:
		h := x.w.Header()
		if empty := r.Respond.Status == http.StatusNoContent || r.Respond.Status == http.StatusNotModified; empty {
			x.w.WriteHeader(r.Respond.Status) // RFC 9110 section 8.6: no Content-Length on a 204
			return true
		}
		h.Set("Content-Type", r.Respond.ContentType)
		h.Set("Content-Length", strconv.Itoa(len(r.Respond.Body)))
		x.w.WriteHeader(r.Respond.Status)
		if x.head.method != http.MethodHead {
			_, _ = x.w.Write([]byte(r.Respond.Body)) // the client may be gone; the account says so
		}
	default:
		return false
	}
	return true
}

func withMark(query string) string {
	if query == "" {
		return ""
	}
	return "?" + query
}

// preflight answers a CORS preflight (Fetch standard, section 3.2.2).
func (x *exchange) preflight(c *configs.CORS) bool {
	if x.head.asks == "" {
		return false
	}
	h := x.w.Header()
	h.Add("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	if corsOrigin(c, x.in.Header.Get("Origin")) != "" {
		h.Set("Access-Control-Allow-Methods", strings.Join(append([]string{"GET", "HEAD", "POST"}, c.Methods...), ", "))
		headers := strings.Join(c.Headers, ", ")
		if c.Headers == nil {
			headers = x.in.Header.Get("Access-Control-Request-Headers")
		}
		if headers != "" {
			h.Set("Access-Control-Allow-Headers", headers)
		}
		h.Set("Access-Control-Max-Age", strconv.Itoa(int(c.MaxAge.D().Seconds())))
	}
	x.w.WriteHeader(http.StatusNoContent)
	return true
}

// corsOrigin is the value of Access-Control-Allow-Origin for a page's origin; empty: it may not.
func corsOrigin(c *configs.CORS, origin string) string {
	if slices.Contains(c.Origins, "*") {
		return "*"
	}
	if slices.Contains(c.Origins, origin) {
		return origin
	}
	return ""
}

// shapeResponse puts the route's word on the headers of a response, just before they are sent: what is stored stays as
// the origin sent it.
func (x *exchange) shapeResponse(h http.Header) {
	x.tellFault(h)
	r := x.match.route
	if r == nil || x.head.hop > 0 {
		return
	}
	x.giveSide(h)
	if c := r.CORS; c != nil {
		for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers"} {
			h.Del(name)
		}
		if !slices.Contains(c.Origins, "*") {
			h.Add("Vary", "Origin")
		}
		if allow := corsOrigin(c, x.in.Header.Get("Origin")); allow != "" && x.in.Header.Get("Origin") != "" {
			h.Set("Access-Control-Allow-Origin", allow)
			if c.Credentials {
				h.Set("Access-Control-Allow-Credentials", "true")
			}
			if len(c.Expose) > 0 {
				h.Set("Access-Control-Expose-Headers", strings.Join(c.Expose, ", "))
			}
		}
	}
	if r.Headers != nil {
		applyOps(h, r.Headers.Response)
	}
}

// shapeRequest puts the route's word on a request to an origin of this region.
func (x *exchange) shapeRequest(out *http.Request) {
	r := x.match.route
	if w := r.Rewrite; w != nil {
		path := x.head.path
		if rest, ok := cutPrefix(path, w.StripPrefix); w.StripPrefix != "" && ok && (rest == "" || rest[0] == '/') {
			path = rest
		}
		if path = w.AddPrefix + path; path == "" || path[0] != '/' {
			path = "/" + path
		}
		setEscapedPath(out.URL, path)
		if w.Host != "" {
			out.Host = w.Host
		}
		if len(w.Query) > 0 {
			out.URL.RawQuery = setQuery(out.URL.RawQuery, w.Query)
		}
	}
	if r.Headers != nil {
		applyOps(out.Header, r.Headers.Request)
	}
}

// setQuery sets or removes parameters and leaves the others as they are written and in their order.
func setQuery(raw string, set map[string]string) string {
	var parts []string
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(name)
		if _, replaced := set[plain]; part == "" || err == nil && replaced {
			continue
		}
		parts = append(parts, part)
	}
	added := url.Values{}
	for name, value := range set {
		if value != "" {
			added.Set(name, value)
		}
	}
	if len(added) > 0 {
		parts = append(parts, added.Encode())
	}
	return strings.Join(parts, "&")
}

func applyOps(h http.Header, ops configs.HeaderOps) {
	for _, name := range ops.Remove {
		h.Del(name)
	}
	for name, value := range ops.Set {
		h.Set(name, value)
	}
}
