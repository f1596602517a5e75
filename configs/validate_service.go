package configs

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// claim is the first place that has a host.
type claim struct {
	service string
	line    int
}

// services checks each service, in the order of the file, so that of two that claim a host the later one is at fault.
func (v *validator) services() {
	ordered := slices.SortedFunc(maps.Keys(v.c.Services), func(a, b string) int {
		lineA, colA := v.where(join("services", a))
		lineB, colB := v.where(join("services", b))
		return cmp.Or(cmp.Compare(lineA, lineB), cmp.Compare(colA, colB), cmp.Compare(a, b))
	})
	claims := make(map[string]claim)
	for _, name := range ordered {
		path, s := join("services", name), v.c.Services[name]
		v.name(path, "service", name)
		v.hosts(path+".hosts", name, s, claims)
		for region := range s.Steering.Weights {
			v.region(join(path+".steering.weights", region), region)
		}
		v.steering(path+".steering", s.Steering)
		v.redirectNames(path+".steering.redirect", s)
		v.residency(path+".residency", s)
		for region, pool := range s.Pools {
			at := join(path+".pools", region)
			v.region(at, region, Any)
			v.origins(at+".origins", pool)
			if len(pool.Origins) == 0 && pool.File == "" && !v.unsure(at, at+".origins", at+".file") {
				v.fault(at, "needs origins, or a file that lists them")
			}
			v.weights(at+".weights", pool)
		}
		v.homes(path, s)
		v.policy(path+".pool", &s.Pool)
		if s.Pool.Check != nil {
			v.check(path+".pool.check", s.Pool.Check)
		}
		if s.Routes != nil && len(s.Routes) == 0 {
			v.fault(path+".routes", "must not be empty, as every request would be a 404: leave out the key for one route that takes all")
		}
		for i := range s.Routes {
			v.route(index(path+".routes", i), &s.Routes[i])
			v.targets(index(path+".routes", i), name, &s.Routes[i])
		}
		v.canaries(path+".routes", name, s.Routes)
		v.shadows(path+".routes", s.Routes)
	}
}

// hosts puts the hosts of a service in lower case and checks them.
func (v *validator) hosts(path, service string, s *Service, claims map[string]claim) {
	for i := range s.Hosts {
		at := index(path, i)
		host := strings.ToLower(s.Hosts[i])
		s.Hosts[i] = host
		if host == "" || v.badAbove(at) {
			continue // reported as required, or unreadable
		}
		if fault := hostFault(host); fault != "" {
			v.fault(at, "%s %s", v.show(at, host), fault)
			continue
		}
		line, _ := v.where(at)
		if first, ok := claims[host]; ok && first.service == service {
			v.fault(at, "%s stands in this service twice; the first is in line %d", v.show(at, host), first.line)
		} else if ok {
			v.duplicate(at, host, "service "+first.service, first.line)
		} else {
			claims[host] = claim{service, line}
		}
	}
}

func (v *validator) origins(path string, pool Pool) {
	for i, origin := range pool.Origins {
		at := index(path, i)
		fault := originFault(origin)
		switch {
		case v.badAbove(at) || fault == "": // unreadable, or right
		case origin == "":
			v.fault(at, "is empty: write http://host:port or https://host:port")
		case strings.Contains(origin, "@"):
			v.fault(at, "%s", fault) // what stands before the @ may be a secret
		default:
			v.fault(at, "%s %s", v.show(at, origin), fault)
		}
	}
	v.distinct(path, len(pool.Origins), func(i int) string { return strings.ToLower(pool.Origins[i]) })
}

var checkHostPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,253}(:[0-9]{1,5})?$`)

func (v *validator) check(path string, c *Check) {
	if !strings.HasPrefix(c.Path, "/") || strings.ContainsAny(c.Path, " #") {
		v.fault(path+".path", "%s is not a path such as /healthz", v.show(path+".path", c.Path))
	}
	if c.Host != "" && !checkHostPattern.MatchString(c.Host) {
		v.fault(path+".host", "%s is not a host for a Host header", v.show(path+".host", c.Host))
	}
	if name, _, _ := strings.Cut(c.Header, ":"); c.Header != "" && (!tokenPattern.MatchString(name) || !fieldValue(c.Header)) {
		v.fault(path+".header", "%s is not a header field: write NAME, or NAME: VALUE", v.show(path+".header", c.Header))
	}
	for key, given := range map[string]bool{"header": c.Header != "", "body": c.Body != "", "path": c.Path != "/", "host": c.Host != ""} {
		if given && c.Type != "http" && !v.unsure(path+".type") {
			v.fault(path+"."+key, "means nothing with type: %s", c.Type)
		}
	}
	if c.Service != "" && c.Type != "grpc" && !v.unsure(path+".type") {
		v.fault(path+".service", "means nothing with type: %s", c.Type)
	}
	if c.Timeout > c.Interval && !v.unsure(path+".timeout", path+".interval") {
		at, byDefault := path+".timeout", ""
		if !v.written(at) {
			at, byDefault = path+".interval", " (the default)"
		}
		v.fault(at, "the timeout of %s%s is longer than the interval of %s: a probe must end before the next begins", c.Timeout, byDefault, c.Interval)
	}
}

// methodPattern is a method (RFC 9110 section 9.1): a token, of which ours are in upper case, as all that are registered.
var methodPattern = regexp.MustCompile("^[A-Z0-9!#$%&'*+.^_`|~-]+$")

func (v *validator) route(path string, r *Route) {
	match := path + ".match"
	if fault := pathFault(r.Match.Path); fault != "" {
		v.fault(match+".path", "%s %s", v.show(match+".path", r.Match.Path), fault)
	}
	if r.Match.Methods != nil && len(r.Match.Methods) == 0 {
		v.fault(match+".methods", "must not be empty, as no request would match: leave out the key for all methods")
	}
	for i, m := range r.Match.Methods {
		at := index(match+".methods", i)
		if methodPattern.MatchString(m) {
			continue
		}
		fix := ""
		if upper := strings.ToUpper(m); methodPattern.MatchString(upper) {
			fix = v.fix(at, "write %q, methods know upper and lower case", upper)
		}
		v.fault(at, "%s is not a method%s", v.show(at, m), fix)
	}
	v.distinct(match+".methods", len(r.Match.Methods), func(i int) string { return r.Match.Methods[i] })
	v.flagged(match+".flag", r.Match.Flag)
	v.timeouts(path+".timeout", r.Timeout)
	v.hedge(path+".hedge", r.Hedge)
	v.shaping(path, r)
	v.routeCache(path+".cache", r.Cache)
}

// timeouts compares only what is written: a default that the total cuts short does no harm.
func (v *validator) timeouts(path string, t RouteTimeout) {
	for _, part := range []struct {
		key   string
		value Duration
	}{{"connect", t.Connect}, {"first_byte", t.FirstByte}} {
		at := path + "." + part.key
		if t.Total > 0 && v.written(at) && part.value > t.Total && !v.unsure(path+".total") {
			v.fault(at, "%s is longer than the total of %s, which would always come first", part.value, t.Total)
		}
	}
}

const maxPath = 2048

// pathFault says what is wrong with the path that a route matches.
func pathFault(path string) string {
	plain := strings.TrimSuffix(path, "*")
	switch {
	case len(path) > maxPath:
		return "is longer than 2048 characters"
	case !strings.HasPrefix(path, "/"):
		return "does not begin with /"
	case strings.ContainsAny(plain, "?#"):
		return "has a query or a fragment: a route matches the path alone"
	case strings.Contains(plain, " "):
		return "has a space: write it as it is sent (%20)"
	case strings.Contains(plain, "*") || plain != path && !strings.HasSuffix(plain, "/"):
		return "has a * in the wrong place: it may stand only at the end, after a /, as in /api/*"
	case slices.ContainsFunc(strings.Split(plain, "/"), func(s string) bool { return s == "." || s == ".." }):
		return "has a . or .. step, which a request never has by then"
	default:
		return ""
	}
}

// allMethods stands for every method where the methods of routes are kept.
const allMethods = ""

// shadows reports the routes that can never match, because routes before them take every request that they match.
func (v *validator) shadows(path string, routes []Route) {
	seen := make(map[string]map[string]int) // by path pattern and method, the first route that takes it
	for i, r := range routes {
		at := index(path, i)
		if v.unsure(at+".match") || pathFault(r.Match.Path) != "" {
			continue
		}
		methods := r.Match.Methods
		if len(methods) == 0 {
			methods = []string{allMethods}
		}
		if by := takers(seen, r.Match.Path, methods); by != nil {
			before := make([]string, len(by))
			for n, j := range by {
				line, _ := v.where(index(path, j))
				before[n] = v.show(index(path, j)+".match.path", routes[j].Match.Path) + " in line " + strconv.Itoa(line)
			}
			v.fault(at, "can never match, as the first match wins and %s takes all that it would: move it up, or remove it", strings.Join(before, " with "))
		}
		if r.Match.Flag != "" {
			continue // it leaves those whom the flag is off for
		}
		if seen[r.Match.Path] == nil {
			seen[r.Match.Path] = make(map[string]int)
		}
		for _, m := range methods {
			if _, ok := seen[r.Match.Path][m]; !ok {
				seen[r.Match.Path][m] = i
			}
		}
	}
}

// takers lists the routes that together take every request of a path pattern and methods, or nil when some is left.
func takers(seen map[string]map[string]int, pattern string, methods []string) []int {
	var by []int
	for _, m := range methods {
		taker := -1
		look := func(p string) {
			for _, key := range []string{m, allMethods} {
				if j, ok := seen[p][key]; ok && (taker < 0 || j < taker) {
					taker = j
				}
			}
		}
		look(pattern)
		for k := range len(pattern) {
			if pattern[k] == '/' {
				look(pattern[:k+1] + "*")
			}
		}
		if taker < 0 {
			return nil
		}
		if !slices.Contains(by, taker) {
			by = append(by, taker)
		}
	}
	return by
}
