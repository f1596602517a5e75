package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"

	"landfall/configs"
	"landfall/gateway/compress"
	"landfall/gateway/homes"
	"landfall/gateway/proxy"
	"landfall/gateway/server"
	"landfall/gateway/upstream"
	"landfall/healthcheck"
)

// generation is what belongs to one configuration. It is immutable once in force.
type generation struct {
	config *configs.Config
	proxy  *proxy.Proxy
	pools  map[string]*upstream.Pool // this region's, by service
	tls    map[string]originProof    // by service
	homes  map[string]*homes.Directory
	closer io.Closer // the access log's file, or nil
}

// generate prepares a generation without touching the one in force. Pools that did not change are carried over with
// their breakers, budgets and connections.
func (n *Node) generate(c *configs.Config, old *generation) (_ *generation, err error) {
	g := &generation{config: c, pools: map[string]*upstream.Pool{}, tls: map[string]originProof{}}
	defer func() {
		if err != nil {
			g.release(old)
		}
	}()
	for name := range c.Services {
		if err := n.generatePool(g, name, old); err != nil {
			return nil, err
		}
	}
	n.generateHomes(g, old)
	access, closer, err := openAccessLog(c.Observe.AccessLog)
	if err != nil {
		return nil, err
	}
	g.closer = closer
	httpsPort := ""
	if *c.Listen.HTTPRedirect && len(c.Listen.HTTPS) > 0 {
		_, httpsPort, _ = net.SplitHostPort(c.Listen.HTTPS[0])
	}
	o := proxy.Options{
		Config: c, Node: n.id.name, Region: n.id.region, Cache: n.cache, Pools: g.pools, Homes: g.homes, Snapshot: n.snapshot.Load,
		Compressor: compress.New(compress.Options{
			Algorithms: c.Compression.Algorithms, MinSize: int64(c.Compression.MinSize), Types: c.Compression.Types, Metrics: n.metrics.compress,
		}),
		Locator: n.geo, Purger: n, Purges: n.purgeTrack, Groups: n.purgeGroups, HasCert: n.hasCert, BadBody: server.ErrMalformedBody, HTTPSPort: httpsPort, Logger: n.log, Access: access, Metrics: n.metrics.proxy, Now: n.o.Now,
		Lasting: n.lasting, Waits: n.strains.of, Seen: n.seen,
	}
	n.steerBy(&o, c)
	if n.peers != nil {
		o.Peers = n.peers
	}
	g.proxy, err = proxy.New(o)
	return g, err
}

// generatePool adds this region's pool of a service, if it has one.
func (n *Node) generatePool(g *generation, service string, old *generation) error {
	pool, ok := g.config.PoolFor(service, n.id.region)
	if !ok {
		return nil
	}
	policy := g.config.Services[service].Pool
	secure, err := originTLS(service, policy.TLS)
	if err != nil {
		return err
	}
	if old != nil && old.pools[service] != nil && old.tls[service].print == secure.print && reflect.DeepEqual(old.config.Services[service].Pool.TLS, policy.TLS) {
		secure = old.tls[service] // the same pointer, so that health checks go on
	}
	g.tls[service] = secure
	if old != nil && old.pools[service] != nil && old.tls[service] == secure && samePool(old.config, g.config, service, n.id.region) {
		g.pools[service] = old.pools[service]
		return nil
	}
	o := upstream.OptionsFrom(service, n.id.region, pool, policy)
	o.Panic, o.Metrics, o.Logger, o.OnEvent = float64(g.config.Health.Panic), n.metrics.upstream, n.log, n.event
	o.TLS, o.OnMembers = secure.config, n.membersChanged
	g.pools[service] = upstream.NewPool(o)
	return nil
}

// samePool tells whether a service's pool means the same in two configs.
func samePool(a, b *configs.Config, service, region string) bool {
	pa, _ := a.PoolFor(service, region)
	pb, _ := b.PoolFor(service, region)
	ca, cb := a.Services[service].Pool, b.Services[service].Pool
	checked := (ca.Check == nil) == (cb.Check == nil)
	ca.Check, cb.Check = nil, nil // what a check says is the checker's to follow
	return reflect.DeepEqual(pa, pb) && reflect.DeepEqual(ca, cb) && checked && a.Health.Panic == b.Health.Panic
}

// keyQueries is Proxy.KeyQueries. Registers may come before the first generation is complete: then nothing is cached.
func (g *generation) keyQueries(service, path, query string) []string {
	if g == nil || g.proxy == nil {
		return []string{query}
	}
	return g.proxy.KeyQueries(service, path, query)
}

// normalURL is Proxy.NormalURL, with the same exception.
func (g *generation) normalURL(raw string) (host, path, query string, err error) {
	if g == nil || g.proxy == nil {
		return "", "", "", errors.New("the node has no configuration yet")
	}
	return g.proxy.NormalURL(raw)
}

// release closes what g does not share with the generation that goes on. Requests in flight on a closed pool finish.
func (g *generation) release(keep *generation) {
	for name, p := range g.pools {
		if keep == nil || keep.pools[name] != p {
			p.Close()
		}
	}
	for name, d := range g.homes {
		if keep == nil || keep.homes[name] != d {
			d.Close()
		}
	}
	if g.closer != nil && keep == nil {
		// Only ever appended to. After a reload, requests in flight still log to the old file: it is closed when the last
		// reference to it goes.
		_ = g.closer.Close()
	}
}

// targets are the health checks of this region's pools.
func (g *generation) targets(region string) []healthcheck.Target {
	var out []healthcheck.Target
	for _, name := range slices.Sorted(maps.Keys(g.config.Services)) {
		_, ok := g.config.PoolFor(name, region)
		check := g.config.Services[name].Pool.Check
		if !ok || check == nil {
			continue
		}
		for _, o := range g.pools[name].Origins() {
			out = append(out, healthcheck.Target{
				Service: name, Region: region, Origin: o, Check: *check, TLS: cmp.Or(g.pools[name].TLS(o), g.tls[name].config), HTTP: g.config.Services[name].Pool.HTTP,
			})
		}
	}
	return out
}

// openAccessLog opens where the access log goes.
func openAccessLog(c configs.AccessLog) (*proxy.AccessLog, io.Closer, error) {
	var w io.Writer
	var closer io.Closer
	switch c.Path {
	case "off":
		return nil, nil, nil
	case "stdout":
		w = os.Stdout
	case "stderr":
		w = os.Stderr
	default:
		f, err := os.OpenFile(c.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("open the access log (observe.access_log.path): %w", err)
		}
		w, closer = f, f
	}
	return proxy.NewAccessLog(slog.New(slog.NewJSONHandler(w, nil)), float64(c.Sample)), closer, nil
}

// Reload reads the config file again and swaps a new generation in, or refuses and changes nothing: the error tells why.
func (n *Node) Reload() error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	err := n.reload()
	if err != nil {
		n.lastReload.Store(&reloadResult{at: n.lastReload.Load().at, err: err.Error()})
		n.event("config.refused", n.o.ConfigFile, err.Error())
		return err
	}
	return nil
}

func (n *Node) reload() error {
	c, err := configs.Load(n.o.ConfigFile, n.o.Lookup)
	if err != nil {
		return err
	}
	old := n.generation.Load()
	if err := reloadable(n.rotatedConfig(old.config, c), c); err != nil {
		return fmt.Errorf("%s is valid, but can't be reloaded: %w", n.o.ConfigFile, err)
	}
	g, err := n.generate(c, old)
	if err != nil {
		return err
	}
	commit, err := n.reloadFiles(c)
	if err != nil {
		g.release(old)
		return err
	}
	commit()
	n.generation.Store(g)
	g.proxy.InForce()
	n.followControls()
	n.membersChanged()
	n.homing.stale.Store(true) // a register may have come between
	n.applyConfig(c)
	old.release(g)
	n.lastReload.Store(&reloadResult{at: n.o.Now()})
	n.event("config.loaded", n.o.ConfigFile, "hash "+c.Hash)
	n.rebuild()
	return nil
}

// seedPools tells new pools what the checks already know; the checker itself tells only changes.
func (n *Node) seedPools(g *generation) {
	for _, t := range g.targets(n.id.region) {
		state, _, _ := n.checker.State(t.Service, t.Origin)
		g.pools[t.Service].SetState(t.Origin, state)
	}
	n.followOrders()
}

// reloadFiles reads the files that a config names and does all of a reload that can fail. Nothing but the map of places,
// whose path can't have changed, is in force before commit.
func (n *Node) reloadFiles(c *configs.Config) (commit func(), err error) {
	commit = func() {}
	if n.certs != nil {
		if commit, err = n.certs.Prepare(c.TLS.Certificates); err != nil {
			return nil, err
		}
	}
	if err := n.asn.Reload(); err != nil {
		return nil, fmt.Errorf("read dns.asn again: %w", err)
	}
	if n.geo != nil {
		if err := n.geo.Reload(); err != nil {
			return nil, fmt.Errorf("read dns.geoip again: %w", err)
		}
	}
	if err := n.reloadDNS(c); err != nil {
		return nil, err
	}
	return commit, nil
}

// applyConfig tells the parts that live as long as the node what the new config says. None of this can fail.
func (n *Node) applyConfig(c *configs.Config) {
	n.openRTT(c)
	n.reloadPushes()
	n.server.SetLimits(c.Limits)
	n.admin.SetConfig(c.Admin)
	n.feeds.Set(c.Purge)
	n.level.Set(logLevel(c.Observe.LogLevel))
	n.metrics.node.config(c.Hash)
	if n.mesh != nil {
		n.mesh.SetConfigHash(c.Hash)
		if keys, err := meshKeys(c.Mesh.Key); err != nil { // checked when it was read
			n.log.Error("the mesh keys stay as they were", "error", err)
		} else if err := n.keys.configure(keys, n.useKeys); err != nil {
			n.log.Error("the mesh keys stay as they were", "error", err)
		}
	}
}

func logLevel(name string) slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(name)) != nil {
		return slog.LevelInfo // validation lets only known names through
	}
	return l
}
