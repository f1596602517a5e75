package configs

import (
	"maps"
	"mime"
	"net/url"
	"slices"
	"strings"
)

const maxRespond = 64 << 10

// shaping checks what a route does to requests beside sending them to a pool.
func (v *validator) shaping(path string, r *Route) {
	if r.Redirect != nil && r.Respond != nil {
		v.fault(path+".respond", "a route can't both redirect and respond: leave out one of them")
	}
	v.rateLimit(path+".rate_limit", r.RateLimit)
	v.basicAuth(path+".basic_auth", r.BasicAuth)
	v.auth(path+".auth", r.Auth)
	if r.BasicAuth != nil && r.Auth != nil && r.Auth.JWT != nil {
		v.fault(path+".auth.jwt", "can't go with basic_auth: both read the field Authorization")
	}
	v.cors(path+".cors", r.CORS)
	v.redirect(path+".redirect", r.Redirect)
	if r.Respond != nil && len(r.Respond.Body) > maxRespond {
		v.fault(path+".respond.body", "is longer than 64 KiB: serve it from an origin")
	}
	if _, _, err := mime.ParseMediaType(contentType(r.Respond)); err != nil {
		v.fault(path+".respond.content_type", "%s is not a media type", v.show(path+".respond.content_type", r.Respond.ContentType))
	}
	v.rewrite(path+".rewrite", r.Rewrite)
	if r.Headers != nil {
		v.headerOps(path+".headers.request", r.Headers.Request)
		v.headerOps(path+".headers.response", r.Headers.Response)
	}
}

// targets checks the services that a route sends requests to.
func (v *validator) targets(path, service string, r *Route) {
	v.target(path+".to", service, r.To)
	if r.Mirror != nil {
		v.target(path+".mirror.to", service, r.Mirror.To)
	}
}

// target checks that a service other than the one that sends there exists.
func (v *validator) target(at, service, to string) {
	if to == "" || v.c.Services[to] != nil && to != service {
		return
	}
	why := "is not a service of this file"
	if to == service {
		why = "is the service itself"
	}
	v.fault(at, "%s %s", v.show(at, to), why)
}

func contentType(r *Respond) string {
	if r == nil {
		return "text/plain"
	}
	return r.ContentType
}

func (v *validator) rateLimit(path string, l *RateLimit) {
	if l == nil {
		return
	}
	kind, _, _ := strings.Cut(l.By, ":")
	if l.By != "route" && (!sourceKnown(l.By) || kind == "url") {
		v.fault(path+".by", "%s is not one of client, route, header:NAME or cookie:NAME", v.show(path+".by", l.By))
	}
	if l.Rate == 0 && !v.unsure(path+".rate") {
		v.fault(path+".rate", "is required, and more than 0: write one such as 50/s or 100/m")
	}
}

func (v *validator) basicAuth(path string, b *BasicAuth) {
	if b == nil {
		return
	}
	if strings.ContainsAny(b.Realm, `"\`) || !fieldValue(b.Realm) {
		v.fault(path+".realm", "%s holds a quote, a backslash or a control character", v.show(path+".realm", b.Realm))
	}
	for i, u := range b.Users {
		at := index(path+".users", i)
		if strings.Contains(u.Name, ":") {
			v.fault(at+".name", "has a colon, which ends a name (RFC 7617 section 2)")
		}
		if u.Hash != "" && !bcryptPattern.MatchString(u.Hash) {
			v.fault(at+".hash", "is not a bcrypt hash: make one with htpasswd -nbB name password")
		}
	}
	v.distinct(path+".users", len(b.Users), func(i int) string { return b.Users[i].Name })
}

func (v *validator) cors(path string, c *CORS) {
	if c == nil {
		return
	}
	for i, o := range c.Origins {
		at := index(path+".origins", i)
		u, err := url.Parse(o)
		switch {
		case o == "*" && c.Credentials:
			v.fault(at, "* can't go with credentials: any page could act for your users; name the origins")
		case o != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil):
			v.fault(at, "%s is not an origin such as https://app.example.com, nor *", v.show(at, o))
		}
	}
	for key, list := range map[string][]string{"methods": c.Methods, "headers": c.Headers, "expose": c.Expose} {
		for i, name := range list {
			if at := index(path+"."+key, i); !tokenPattern.MatchString(name) {
				v.fault(at, "%s is not a name", v.show(at, name))
			}
		}
	}
}

func (v *validator) redirect(path string, r *Redirect) {
	if r == nil {
		return
	}
	plain := strings.NewReplacer("{path}", "/p", "{query}", "", "{host}", "h").Replace(r.To)
	u, err := url.Parse(plain)
	if r.To != "" && (err != nil || strings.ContainsAny(plain, "{} ") || !(strings.HasPrefix(plain, "/") || u.Scheme != "" && u.Host != "")) {
		v.fault(path+".to", "%s is not a URL or a path; it may hold {path}, {query} and {host}", v.show(path+".to", r.To))
	}
	if strings.HasPrefix(r.To, "{path}") {
		v.fault(path+".to", "would send a client who asks for //evil.example there: write a host or a path before {path}")
	}
	if r.Status > 303 && r.Status < 307 {
		v.fault(path+".status", "%d is not one of 301, 302, 303, 307, 308", r.Status)
	}
}

func (v *validator) rewrite(path string, r *Rewrite) {
	if r == nil {
		return
	}
	for key, prefix := range map[string]string{"strip_prefix": r.StripPrefix, "add_prefix": r.AddPrefix} {
		if prefix != "" && (pathFault(prefix) != "" || strings.HasSuffix(prefix, "*") || strings.HasSuffix(prefix, "/")) {
			v.fault(path+"."+key, "%s is not a path such as /api, without a / or * at its end", v.show(path+"."+key, prefix))
		}
	}
	if r.Host != "" && !checkHostPattern.MatchString(r.Host) {
		v.fault(path+".host", "%s is not a host", v.show(path+".host", r.Host))
	}
}

// framing are the fields that this gateway itself says of each message.
var framing = []string{"Connection", "Content-Length", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func (v *validator) headerOps(path string, ops HeaderOps) {
	for _, name := range slices.Sorted(maps.Keys(ops.Set)) {
		v.settable(join(path+".set", name), name)
		if !fieldValue(ops.Set[name]) {
			v.fault(join(path+".set", name), "holds a control character")
		}
	}
	for i, name := range ops.Remove {
		v.settable(index(path+".remove", i), name)
	}
}

// settable checks the name of a header field that a route sets or removes.
func (v *validator) settable(at, name string) {
	if !tokenPattern.MatchString(name) {
		v.fault(at, "%s is not the name of a header field", v.show(at, name))
	} else if slices.ContainsFunc(framing, func(f string) bool { return strings.EqualFold(f, name) }) {
		v.fault(at, "%s belongs to the connection and not to the message; for the host see rewrite.host", name)
	}
}

// fieldValue tells whether a text can stand as the value of a header field (RFC 9110 section 5.5).
func fieldValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
