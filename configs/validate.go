package configs

import (
	"encoding/base64"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// validator checks what the tags can't say: the syntax of names and addresses, and the rules between keys.
type validator struct {
	*report
	c *Config
}

// validate reports every fault of c. It changes nothing but the letter case of the services' hosts.
func validate(c *Config, r *report) {
	v := &validator{report: r, c: c}
	r.bounds(c)
	v.name("fleet", "fleet", c.Fleet)
	for _, name := range c.RegionNames() {
		path := join("regions", name)
		v.name(path, "region", name)
		if name == Any {
			v.fault(path, `"any" means every region in pools; give the region another name`)
		}
		for i, j := range v.c.Regions[name].Jurisdictions {
			v.name(index(path+".jurisdictions", i), "jurisdiction", j)
		}
	}
	if !v.badAbove("regions") {
		v.oneOf(c.Health.AllDown, append(c.RegionNames(), "fail_open"), "health.all_down")
		v.oneOf(c.Cache.Shield, append(c.RegionNames(), "off", "nearest"), "cache.shield")
	}
	v.health()
	v.listen()
	v.mesh()
	v.dns()
	v.tls()
	v.admin()
	v.node()
	v.flags()
	v.services()
	v.purge()
	v.chaos()
}

// minLook is the shortest time between two looks at a front door.
const minLook = Duration(100 * time.Millisecond)

func (v *validator) health() {
	if d := v.c.Health.FrontDoors.Interval; d > 0 && d < minLook {
		v.fault("health.front_doors.interval", "%s is shorter than %s; 0s switches the looks off", d, minLook)
	}
}

var labelPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// name checks the name of a fleet, region or service: they stand in metrics, host names and headers.
func (v *validator) name(path, what, name string) {
	if !labelPattern.MatchString(name) {
		v.fault(path, "%s can't name a %s: use up to 63 of a-z, 0-9 and -, and no - at either end", v.show(path, name), what)
	}
}

// region checks that a key is a region of the fleet, or one of the other words allowed there.
func (v *validator) region(path, name string, others ...string) {
	known := append(v.c.RegionNames(), others...)
	switch {
	case slices.Contains(known, name) || v.badAbove("regions"):
	case !v.written("regions"):
		v.fault(path, `%q is not a region of this fleet, which names none and so has only "local": add it under regions`, name)
	default:
		v.fault(path, "%q is not a region of this fleet%s (known: %s)", name, meant(name, known), strings.Join(known, ", "))
	}
}

// mesh checks that nodes which gossip can also trust and reach each other.
func (v *validator) mesh() {
	listen, mesh := v.c.Listen, v.c.Mesh
	if listen.Mesh != "" {
		if len(mesh.Key) == 0 && !v.unsure("mesh.key") {
			v.fault("listen.mesh", "needs mesh.key, so that nobody else can join: make one with openssl rand -base64 32")
		}
		if listen.Peer == "" && !v.unsure("listen.peer") {
			v.fault("listen.mesh", `needs listen.peer, the way that nodes pass requests to each other, such as ":7443"`)
		}
	}
	if len(mesh.Join) > 0 && listen.Mesh == "" && !v.unsure("listen.mesh") {
		v.fault("mesh.join", `needs listen.mesh, such as ":7946": without it this node hears nobody`)
	}
	for i, addr := range mesh.Join {
		v.joinAddress(v.elementPath("mesh.join", i), addr)
	}
	v.distinct("mesh.join", len(mesh.Join), func(i int) string { return mesh.Join[i] })
	v.meshKeys()
	v.meshTLS()
}

func (v *validator) meshKeys() {
	first := make(map[string]int)
	for i, key := range v.c.Mesh.Key {
		path := v.elementPath("mesh.key", i)
		if key == "" {
			v.fault(path, "is empty: it must be 32 bytes in base64; make one with openssl rand -base64 32")
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(key)
		if err != nil {
			v.fault(path, "is not base64: it must be 32 bytes in base64; make one with openssl rand -base64 32")
		} else if len(raw) != 32 {
			v.fault(path, "is %d bytes long: it must be 32 bytes in base64; make one with openssl rand -base64 32", len(raw))
		} else if before, ok := first[key]; ok {
			v.fault(path, "is the same as key %d of the list", before+1)
		} else {
			first[key] = i
		}
	}
}

func (v *validator) meshTLS() {
	files := v.c.Mesh.TLS
	if v.c.Listen.Peer != "" && files == (MeshTLS{}) {
		if !v.unsure("mesh.tls") {
			v.fault("listen.peer", "needs mesh.tls, the certificates by which nodes know each other: give ca, cert and key")
		}
		return
	}
	for _, f := range []struct{ key, value string }{{"ca", files.CA}, {"cert", files.Cert}, {"key", files.Key}} {
		path := "mesh.tls." + f.key
		switch {
		case f.value != "":
		case files != (MeshTLS{}):
			v.fault(path, "is required: mesh.tls needs all of ca, cert and key")
		}
	}
}

// tls checks that each HTTPS listener has a certificate to show, and that ACME can prove what it has to.
func (v *validator) tls() {
	t := v.c.TLS
	if len(v.c.Listen.HTTPS) > 0 && len(t.Certificates) == 0 && t.ACME == nil && !v.unsure("tls.certificates", "tls.acme") {
		v.fault("listen.https", "needs a certificate: give tls.certificates or tls.acme")
	}
	if v.c.Listen.HTTP3 && len(v.c.Listen.HTTPS) == 0 && !v.unsure("listen.https") {
		v.fault("listen.http3", `needs listen.https, such as [":443"]: HTTP/3 is served on the same port, by UDP`)
	}
	if t.ACME == nil {
		return
	}
	v.acmeDirectory(t.ACME.Directory)
	if len(v.c.Listen.HTTPS) == 0 && !v.unsure("listen.https") {
		v.fault("tls.acme", `needs listen.https, such as [":443"]: nothing would use the certificates`)
	}
	if t.ACME.Challenge == "http" && len(v.c.Listen.HTTP) == 0 && !v.unsure("listen.http") {
		v.fault("tls.acme.challenge", `http needs listen.http, such as [":80"]: the CA asks there`)
	}
	if t.ACME.Email != "" && !mailPattern.MatchString(t.ACME.Email) {
		v.fault("tls.acme.email", "%s is not a mail address", v.show("tls.acme.email", t.ACME.Email))
	}
	if !v.unsure("services") && !slices.ContainsFunc(slices.Collect(maps.Values(v.c.Services)), provable) {
		v.fault("tls.acme", "has nothing to obtain: no service has an exact public host name, and neither challenge can prove a wildcard")
	}
}

// provable tells whether a service has a host that an http or tls-alpn challenge can prove.
func provable(s *Service) bool {
	return slices.ContainsFunc(s.Hosts, func(host string) bool {
		_, err := netip.ParseAddr(host)
		return err != nil && strings.Contains(host, ".") && !strings.Contains(host, "*")
	})
}

func (v *validator) acmeDirectory(directory string) {
	const path = "tls.acme.directory"
	if directory == "" {
		return // reported as required
	}
	u, err := url.Parse(directory)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		v.fault(path, "%s is not a URL such as https://acme.example/directory", v.show(path, directory))
	case u.User != nil:
		v.fault(path, "holds a user or password, which ACME has no use for")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		v.fault(path, "%s is not https: http is for a test CA on loopback only", v.show(path, directory))
	}
}

var bcryptPattern = regexp.MustCompile(`^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

// maxBcryptCost bounds the work of one token check: each step doubles it, and 15 is some seconds.
const maxBcryptCost = 15

func (v *validator) admin() {
	tokens := v.c.Admin.Tokens
	if host, _, ok := strings.Cut(v.c.Listen.Admin, ":"); len(tokens) == 0 && ok && !v.unsure("admin.tokens", "listen.admin") {
		if ap, err := netip.ParseAddrPort(v.c.Listen.Admin); err == nil {
			host = ap.Addr().String()
		}
		if !loopback(host) {
			v.fault("listen.admin", "%s is not loopback, so it needs admin.tokens", v.show("listen.admin", v.c.Listen.Admin))
		}
	}
	v.distinct("admin.tokens", len(tokens), func(i int) string { return tokens[i].Name })
	for i, t := range tokens {
		path := index("admin.tokens", i)
		m := bcryptPattern.FindStringSubmatch(t.Hash)
		switch {
		case t.Hash == "": // reported as required
		case m == nil:
			v.fault(path+".hash", "is not a bcrypt hash ($2y$10$ and 53 characters): make one with htpasswd -nbB name token")
		default:
			if cost, err := strconv.Atoi(m[1]); err != nil || cost < 4 || cost > maxBcryptCost {
				v.fault(path+".hash", "has a bcrypt cost of %s: use 4 to %d, each more doubles the work of a check", m[1], maxBcryptCost)
			}
		}
		if len(t.Allow) == 0 {
			v.fault(path+".allow", "must not be empty: the token could do nothing")
		}
	}
}

var mediaTypePattern = regexp.MustCompile(`^[a-z0-9!#$&^_.+-]+/([a-z0-9!#$&^_.+-]+|\*)$`)

// node checks the settings of each node on its own: cache, compression, logs.
func (v *validator) node() {
	cache := v.c.Cache
	if v.written("cache.max_object") && v.written("cache.memory") && cache.Memory > 0 && cache.MaxObject > cache.Memory {
		v.fault("cache.max_object", "%s is more than cache.memory (%s): such an object would never be stored", cache.MaxObject, cache.Memory)
	}
	types := v.c.Compression.Types
	for i, t := range types {
		path := index("compression.types", i)
		if !mediaTypePattern.MatchString(t) {
			v.fault(path, "%s is not a media type in lower case, such as application/json or text/*", v.show(path, t))
		}
	}
	v.distinct("compression.types", len(types), func(i int) string { return types[i] })
	if v.c.Observe.AccessLog.Path == "" {
		v.fault("observe.access_log.path", "must not be empty: write stdout, stderr, off or the name of a file")
	}
}

// duplicate is the text for something that two places claim.
func (v *validator) duplicate(path, value, by string, line int) {
	v.fault(path, "%s is already claimed by %s in line %d", v.show(path, value), by, line)
}
