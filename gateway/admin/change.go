package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
)

const (
	// defaultWait and the bounds below are for how long a change waits for the other nodes.
	defaultWait = 10 * time.Second
	minWait     = 100 * time.Millisecond
	maxWait     = time.Minute

	minDrain    = time.Second
	maxDrain    = 365 * 24 * time.Hour
	maxOver     = 24 * time.Hour
	maxReason   = 512
	maxPurgeURL = 1000
)

var timeoutParameter = parameter{name: "timeout", kind: "string", example: "10s",
	doc: "How long to wait for the other nodes, 100ms to 1m; 10s when absent. Those that have not answered by then are named in missing."}

var waitParameter = parameter{name: "wait", kind: "string", example: "all",
	doc: "Whose word to wait for: node (the one that is asked), region (its region's live nodes), or all live nodes; all when absent."}

func (a *API) setDrain(w http.ResponseWriter, c *call, kind string) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	target := DrainTarget{Kind: kind, Name: c.PathValue(kind)}
	if kind == DrainService {
		target.Name += "/" + c.PathValue("region")
	}
	if err := a.checkDrainTarget(target, c.Method == http.MethodPut); err != nil {
		return 0, nil, err
	}
	var spec *DrainSpec
	if c.Method == http.MethodPut {
		decoded, err := decodeDrain(c.body)
		if err != nil {
			return 0, nil, err
		}
		if spec = &decoded; spec.Over > 0 && kind == DrainNode {
			return 0, nil, Invalid("over", "a node is drained at once: its region's other nodes are right beside it")
		}
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetDrain(ctx, target, spec, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

// checkDrainTarget wants a region or node that exists; a drain may also be ended when what it was for is gone.
func (a *API) checkDrainTarget(target DrainTarget, begin bool) error {
	var known []string
	switch target.Kind {
	case DrainRegion:
		for _, r := range a.backend.Regions() {
			known = append(known, r.Name)
		}
	case DrainNode:
		for _, n := range a.backend.Nodes() {
			known = append(known, n.Name)
		}
	case DrainService:
		for _, s := range a.backend.Services() {
			for _, r := range s.Regions {
				known = append(known, s.Name+"/"+r.Region)
			}
		}
	}
	if target.Kind == DrainOrigin {
		known = a.originNames()
	}
	if !begin {
		for _, d := range a.backend.Drains() {
			if d.Kind == target.Kind {
				known = append(known, d.Name)
			}
		}
	}
	for _, name := range known {
		if name == target.Name {
			return nil
		}
	}
	return NotFound(target.Kind, target.Name, known)
}

// decodeDrain reads the body of a drain; an absent one is a drain without an end or a reason.
func decodeDrain(data []byte) (DrainSpec, error) {
	var spec DrainSpec
	if data == nil {
		return spec, nil
	}
	err := decodeObject(data, []field{
		durationField("for", minDrain, maxDrain, "1s to 365d, or leave it out to drain until undrained", &spec.For),
		durationField("over", minDrain, maxOver, "1s to 24h, or leave it out to drain at once", &spec.Over),
		reasonField(&spec.Reason),
		boolField("force", &spec.Force),
	}, nil)
	if err != nil {
		return DrainSpec{}, err
	}
	return spec, nil
}

func (a *API) purge(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	p, err := decodePurge(c.body)
	if err != nil {
		return 0, nil, err
	}
	service, err := a.service(p.Service)
	if err != nil {
		return 0, nil, err
	}
	var hosts []string
	for _, h := range p.Hosts {
		hosts = append(hosts, "https://"+h+"/")
	}
	if err := errors.Join(checkHosts(service, "urls", p.URLs), checkHosts(service, "prefixes", p.Prefixes), checkHosts(service, "hosts", hosts)); err != nil {
		return 0, nil, err
	}
	scope := c.URL.Query().Get("wait")
	switch scope {
	case "":
		scope = WaitAll
	case WaitNode, WaitRegion, WaitAll:
	default:
		return 0, nil, Invalid("wait", clip(scope, 40)+" is none of node, region and all")
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.Purge(ctx, p, scope, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

func decodePurge(data []byte) (PurgeRequest, error) {
	var p PurgeRequest
	if data == nil {
		return p, invalidBody(`the body is missing; send {"service": NAME, "urls": [URL, …]}`)
	}
	target := func(s string) error {
		_, err := parseTarget(s)
		return err
	}
	err := decodeObject(data, []field{
		stringField("service", func(s string) error {
			p.Service = s
			return nil
		}),
		listField("urls", maxPurgeURL, &p.URLs, target),
		listField("prefixes", maxPurgeURL, &p.Prefixes, func(s string) error {
			if strings.Contains(s, "?") {
				return errors.New("a prefix has no query")
			}
			return target(s)
		}),
		listField("hosts", maxPurgeURL, &p.Hosts, func(s string) error {
			if strings.ContainsAny(s, "/?#@: ") {
				return errors.New("give a host name alone")
			}
			return target("https://" + s + "/")
		}),
		listField("keys", maxPurgeURL, &p.Keys, checkKey),
		boolField("all", &p.All),
		boolField("soft", &p.Soft),
	}, nil)
	if err != nil {
		return PurgeRequest{}, err
	}
	var missing []FieldError
	if p.Service == "" {
		missing = append(missing, FieldError{"service", "is missing; name the service whose objects are purged"})
	}
	switch some := p.URLs != nil || p.Prefixes != nil || p.Hosts != nil || p.Keys != nil; {
	case !some && !p.All:
		missing = append(missing, FieldError{"urls", "is missing; say what to purge by urls, prefixes, hosts, keys, or all"})
	case some && p.All:
		missing = append(missing, FieldError{"all", "is everything of the service; give it alone"})
	}
	if missing != nil {
		return PurgeRequest{}, invalid(missing...)
	}
	return p, nil
}

// checkKey wants what a header can carry as one surrogate key.
func checkKey(s string) error {
	if s == "" || len(s) > 1024 || strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("give 1 to 1024 bytes without control characters")
	}
	return nil
}

// checkHosts refuses a URL of a host that the service does not have: its purge would remove nothing and look done.
func checkHosts(service Service, field string, urls []string) error {
	var refused []FieldError
	for i, s := range urls {
		u, err := parseTarget(s)
		if err != nil {
			return err
		}
		if !hasHost(service.Hosts, u.Hostname()) && len(refused) < maxKnown {
			refused = append(refused, FieldError{fmt.Sprintf("%s[%d]", field, i),
				fmt.Sprintf("%s is not a host of service %s, which has %s", clip(u.Hostname(), 80), service.Name, clip(strings.Join(service.Hosts, ", "), 400))})
		}
	}
	if refused != nil {
		return invalid(refused...)
	}
	return nil
}

func hasHost(hosts []string, host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, h := range hosts {
		suffix, wildcard := strings.CutPrefix(h, "*")
		if h == host || wildcard && strings.HasSuffix(host, suffix) && len(host) > len(suffix) {
			return true
		}
	}
	return false
}

// waitOf is how long the request wants to wait for other nodes.
func waitOf(c *call) (time.Duration, error) {
	text := c.URL.Query().Get("timeout")
	if text == "" {
		return defaultWait, nil
	}
	d, err := ParseDuration(text)
	if err == nil && (d.D() < minWait || d.D() > maxWait) {
		err = errors.New(d.String() + " is out of range; give 100ms to 1m")
	}
	if err != nil {
		return 0, Invalid("timeout", err.Error())
	}
	return d.D(), nil
}

// waiting bounds the wait for other nodes and keeps the server's WriteTimeout from ending it early. The deadline of a
// socket is real time, whatever clock the API was given.
func waiting(w http.ResponseWriter, c *call, wait time.Duration) (context.Context, context.CancelFunc) {
	if server, ok := c.Context().Value(http.ServerContextKey).(*http.Server); ok && server.WriteTimeout > 0 {
		// A writer without deadlines has no WriteTimeout to move either.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + server.WriteTimeout))
	}
	return context.WithTimeout(c.Context(), wait)
}

// changed is 200 when every node has answered, and 202 when some are still to follow.
func changed(missing int) int {
	if missing > 0 {
		return http.StatusAccepted
	}
	return http.StatusOK
}

// reasonField reads an operator's reason, for the others to read.
func reasonField(to *string) field {
	return stringField("reason", func(s string) error {
		*to = s
		if len(s) > maxReason || strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("give at most %d bytes without control characters", maxReason)
		}
		return nil
	})
}

// durationField reads a duration within bounds, which hint says in words, and what leaving it out means.
func durationField(name string, least, most time.Duration, hint string, to *Duration) field {
	return stringField(name, func(s string) (err error) {
		if *to, err = ParseDuration(s); err == nil && (to.D() < least || to.D() > most) {
			err = fmt.Errorf("%s is out of range; give %s", *to, hint)
		}
		return err
	})
}
