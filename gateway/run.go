package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"landfall/gateway/proxy"
	"landfall/gateway/server"
	"landfall/healthcheck"
	"landfall/routing"
	"landfall/routing/mesh"
)

// Run serves until stop is closed (a stop in stages, see leave) or ctx ends (everything is cut at once), and returns when
// every goroutine of the node has ended. A part that fails by itself ends the node, with its error.
func (n *Node) Run(ctx context.Context, stop <-chan struct{}) error {
	defer n.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.server.Run(ctx) })
	g.Go(func() error { return n.checker.Run(ctx) })
	g.Go(func() error { return n.watch(ctx) })
	g.Go(func() error { return n.serveAdmin(ctx) })
	g.Go(func() error { return n.runFeeds(ctx) })
	g.Go(func() error { return n.judgeCanaries(ctx) })
	if n.mesh != nil {
		g.Go(func() error { return n.shareRTT(ctx) })
		g.Go(func() error { return n.shareLimits(ctx) })
		g.Go(func() error { return n.mesh.Run(ctx) })
		if n.wire != nil {
			g.Go(func() error { return n.runNetwork(ctx) })
		}
		g.Go(func() error { return n.observers.run(ctx) })
		g.Go(func() error { return n.runKeys(ctx) })
		g.Go(func() error { return n.watchCerts(ctx) })
	}
	if n.certs != nil {
		g.Go(func() error { return n.certs.Run(ctx) })
	}
	g.Go(func() error { return n.runPushes(ctx) })
	for _, l := range n.dnsListeners {
		g.Go(func() error {
			// A node that has not joined knows no addresses, and resolvers would remember an answer without one. Queries that
			// come before wait in the sockets.
			select {
			case <-n.joined:
				return n.dns.Serve(ctx, l.udp, l.tcp)
			case <-ctx.Done():
				return nil
			}
		})
	}
	for _, l := range n.listeners {
		n.o.Print(fmt.Sprintf("listening %-6s %s", l.kind, l.addr))
	}
	g.Go(func() error { return n.live(ctx, stop, cancel) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// live leads the node through its states: joining, serving, and at the end leaving.
func (n *Node) live(ctx context.Context, stop <-chan struct{}, end func()) error {
	defer end()
	if n.mesh != nil {
		select {
		case <-n.mesh.Ready():
			n.endDoubt()
		case <-stop:
			close(n.joined)
			return n.leave(ctx)
		case <-ctx.Done():
			return nil
		}
	}
	n.followControls() // what operators turned holds from the first request on
	n.setState(mesh.Serving)
	close(n.joined)
	n.o.Print("ready")
	n.event("node.ready", n.id.name, "serving "+n.id.region)
	select {
	case <-stop:
		return n.leave(ctx)
	case <-ctx.Done():
		return nil
	}
}

// leave stops the node in stages that anyone can watch in the log, the events and /v1/status:
//
//  1. out of DNS and marked leaving in the mesh; the node goes on serving, and tells each connection that answers to go
//  2. after shutdown.dns_wait: no new connections; GOAWAY or Connection: close to all, idle ones too
//  3. requests in flight finish, at most shutdown.grace, while the log names what holds the node up
//  4. out of the mesh; the end
//
// The end of ctx (a second signal) skips the waits.
func (n *Node) leave(ctx context.Context) error {
	c := n.generation.Load().config.Shutdown
	n.event("node.leaving", n.id.name, fmt.Sprintf("stage 1 of 4: out of DNS; serving for another %s", c.DNSWait))
	n.setState(mesh.Leaving)
	n.server.SetLeaving(true)
	select {
	case <-ctx.Done():
	case <-time.After(c.DNSWait.D()):
	}
	n.event("node.leaving", n.id.name, fmt.Sprintf("stage 2 of 4: connections are told to go; %d requests in flight, up to %s to finish", len(n.server.InFlight()), c.Grace))
	if n.mesh != nil {
		n.mesh.EndAccepted() // they last as long as the nodes do; this node's own links go on
	}
	report := n.server.Stop(ctx, c.Grace.D())
	detail := fmt.Sprintf("stage 3 of 4: %d requests finished", report.Finished)
	if len(report.Cut) > 0 {
		detail += fmt.Sprintf(", %d were cut: %s", len(report.Cut), heldText(report.Cut))
	}
	n.event("node.leaving", n.id.name, detail)
	if n.mesh != nil {
		if err := n.mesh.Leave(leavePatience); err != nil {
			n.log.Warn("not every node heard that this one left; they will find out by its silence", "error", err)
		}
	}
	n.event("node.left", n.id.name, "stage 4 of 4: out of the mesh")
	return nil
}

const leavePatience = 2 * time.Second

// heldText names the requests that were cut, the first few.
func heldText(held []server.Held) string {
	const most = 5
	var parts []string
	for i, h := range held {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(held)-most))
			break
		}
		parts = append(parts, fmt.Sprintf("%s %s%s (%s, %s)", h.Method, h.Host, h.Path, h.Remote, h.Age.Round(time.Second)))
	}
	return strings.Join(parts, "; ")
}

// setState tells the fleet, and this node's own snapshot, what the node is doing. A node that leaves does nothing else any
// more, so that a drain that ends at the same moment can't bring it back.
func (n *Node) setState(s mesh.NodeState) {
	n.stating.Lock()
	if n.state.Load() != mesh.Leaving {
		n.state.Store(s)
		if n.mesh != nil {
			n.mesh.SetState(s)
		}
	}
	n.stating.Unlock()
	n.rebuild()
}

// kick asks for a new snapshot soon. It never blocks.
func (n *Node) kick() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// tickInterval is how often a snapshot is made when nothing changed: what expires by itself shows by then. The work is
// the same in good and bad times.
const tickInterval = 250 * time.Millisecond

// watch keeps the snapshot in step with what the node knows.
func (n *Node) watch(ctx context.Context) error {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.requests.tick(n.o.Now())
			n.spills.tick(n)
		case <-n.changed:
		}
		n.rebuild()
		n.publishReport()
		n.followDoors()
		n.followDrain()
		n.followOrders()
		n.followControls()
		n.followIsolation()
		n.followHomes()
	}
}

// reportMaxAge is how old a node's report may be before its pools count as unknown.
const reportMaxAge = 5 * time.Second

// rebuild folds what the node knows into a new snapshot and tells what changed.
func (n *Node) rebuild() {
	n.building.Lock()
	defer n.building.Unlock()
	now := n.o.Now()
	old, oldPicture := n.snapshot.Load(), n.picture.Load()
	v := view{
		config: n.generation.Load().config, drains: drainsIn(n.fleet.Registers(drainPrefix), now),
		weights: weightsIn(n.fleet.Registers(weightPrefix)), now: now, version: 1,
	}
	if old != nil {
		v.version = old.Version + 1
	}
	heard := map[string]heardDoors{}
	for _, m := range n.fleet.Members() {
		member := n.member(m, now)
		heard[m.Name] = n.heard[m.Name].hear(m.Sights)
		member.doors = heard[m.Name].said
		v.members = append(v.members, member)
	}
	n.heard = heard
	n.peerRTTs = steadyRTT(n.peerRTTs, v.members)
	v.self, v.peers = n.id.region, n.peerRTTs
	var events [][3]string
	forces := forcesIn(n.fleet.Registers(forcePrefix), now)
	n.judging.judge.SetPolicy(verdictPolicy(v.config))
	oldForces := n.judging.forces
	n.judging.forces = forces
	v.weigh = func(s *routing.Snapshot, facts []regionFacts) { events = n.judging.weigh(v, n.id.region, s, facts) }
	s, facts := v.snapshot()
	n.followCalm(old, s, now)
	n.snapshot.Store(s)
	n.picture.Store(&picture{members: v.members, drains: v.drains, facts: facts})
	n.metrics.node.observe(n.id.region, s, v.drains)
	if oldPicture != nil {
		n.tellChanges(old, s, facts, oldPicture.drains, v.drains)
		n.tellForces(oldForces, forces)
	}
	for _, e := range events {
		n.event(e[0], e[1], e[2])
	}
}

// member decodes a member's report; this node's own is what it sees now.
func (n *Node) member(m mesh.Member, now time.Time) member {
	if m.Self {
		m.State = n.state.Load().(mesh.NodeState)
		return member{Member: m, report: n.ownReport(now), fresh: true}
	}
	out := member{Member: m}
	if m.Report != nil && now.Sub(m.ReportAt) <= reportMaxAge {
		report, err := decodeReport(m.Report)
		out.report, out.fresh = report, err == nil
	}
	return out
}

// ownReport is how this node sees its region's pools.
func (n *Node) ownReport(now time.Time) report {
	r := report{Pools: map[string]string{}, Origins: map[string]map[string]string{}, Load: threeDigits(n.requests.value()), Spill: n.spills.published(), Strain: n.strains.told(), Push: n.pushTargets(), PushTrouble: n.pushTrouble()}
	if n.keys != nil {
		r.Keys, r.KeysKept = n.keys.prints(), n.keys.path != ""
	}
	origins := 0
	for name, p := range n.generation.Load().pools {
		status := p.Status()
		r.Pools[name] = status.State.String()
		r.Origins[name] = map[string]string{}
		for _, o := range status.Origins {
			r.Origins[name][o.URL] = o.State.String()
			origins++
		}
	}
	if origins > maxReportOrigins {
		r.Origins = nil
	}
	n.steady.hold(&r, now)
	return r
}

// reportEvery is how often an unchanged report is renewed: one that isn't counts as stale, since its node may be stuck.
const reportEvery = time.Second

// publishReport tells the fleet what this node reported in its own picture: at once when it says something new, else once
// a second.
func (n *Node) publishReport() {
	members := n.picture.Load().members
	self := slices.IndexFunc(members, func(m member) bool { return m.Self })
	if n.mesh == nil || self < 0 {
		return
	}
	now := n.o.Now()
	data, err := json.Marshal(members[self].report)
	if err != nil || string(data) == n.published && now.Sub(n.publishedAt) < reportEvery {
		return
	}
	n.published, n.publishedAt = string(data), now
	n.mesh.Publish(data)
}

// tellChanges writes events for what a person wants to know of: regions and services that came, went, or were drained.
func (n *Node) tellChanges(old, now *routing.Snapshot, facts []regionFacts, oldDrains, drains []Drain) {
	for i := range now.Regions {
		if i >= len(old.Regions) || old.Regions[i].Name != now.Regions[i].Name {
			continue // another config
		}
		if was, is := old.Regions[i].Dead, now.Regions[i].Dead; was != is {
			if is {
				n.event("region.down", now.Regions[i].Name, "none of its nodes is alive and reachable")
			} else {
				n.event("region.up", now.Regions[i].Name, "it has a live node again")
			}
		}
	}
	for _, s := range now.Services {
		j := old.Service(s.Name)
		if j < 0 || len(old.Services[j].Places) != len(s.Places) {
			continue
		}
		for i, p := range s.Places {
			if was := old.Services[j].Places[i].Pool; p.HasPool && was != p.Pool && !now.Regions[i].Dead {
				detail := "was " + was.String()
				if p.Shut {
					detail += "; " + facts[i].doors[s.Name].evidence
				}
				n.event("pool."+p.Pool.String(), s.Name+"/"+now.Regions[i].Name, detail)
			}
		}
	}
	for _, d := range missingFrom(oldDrains, drains) {
		n.event("drain.set", d.Kind+"/"+d.Name, fmt.Sprintf("by %s: %s", d.By, d.Reason))
	}
	for _, d := range missingFrom(drains, oldDrains) {
		n.event("drain.ended", d.Kind+"/"+d.Name, "undrained or expired")
	}
}

// missingFrom are the drains of all that have is without.
func missingFrom(have, all []Drain) []Drain {
	known := map[string]bool{}
	for _, d := range have {
		known[d.key()] = true
	}
	var out []Drain
	for _, d := range all {
		if !known[d.key()] {
			out = append(out, d)
		}
	}
	return out
}

// followDrain makes a drain of this node or its region the node's own state, and tells its connections to go once the
// drain is older than DNS's memory: by then clients that look the name up again are sent elsewhere.
func (n *Node) followDrain() {
	state := n.state.Load().(mesh.NodeState)
	if state != mesh.Serving && state != mesh.Draining {
		return
	}
	want := mesh.Serving
	for _, d := range n.picture.Load().drains {
		here := d.Kind == kindNode && d.Name == n.id.name || d.Kind == kindRegion && d.Name == n.id.region
		if here && d.share(n.o.Now()) >= 1 { // until then it serves those that are still here
			want = mesh.Draining
		}
	}
	if want != state {
		n.drainSeen = n.o.Now() // not the drain's own time: the clock of whoever set it may be off
		n.setState(want)
	}
	leaving := want == mesh.Draining && n.o.Now().Sub(n.drainSeen) >= n.generation.Load().config.Shutdown.DNSWait.D()
	if leaving != n.toldToGo {
		n.toldToGo = leaving
		n.server.SetLeaving(leaving || n.state.Load() == mesh.Leaving)
	}
}

// originChanged carries a health check's verdict to the pool, and kicks the snapshot.
func (n *Node) originChanged(t healthcheck.Target, s routing.State, reason string) {
	if p := n.generation.Load().pools[t.Service]; p != nil {
		p.SetState(t.Origin, s)
	}
	if s != routing.Unknown {
		n.event("origin."+s.String(), t.Service+" "+t.Origin, reason)
	}
	n.kick()
}

// serveClient takes a request of a client listener.
func (n *Node) serveClient(w http.ResponseWriter, r *http.Request) {
	if n.certs != nil && n.certs.HTTPChallenge(w, r) {
		return
	}
	if n.answerDoor(w, r) {
		return
	}
	select {
	case <-n.joined: // nearly always
	default:
		// The registers of the fleet come before the traffic: a drain or a purge may be among them. The wait is bounded
		// by the mesh's own for its peers.
		select {
		case <-n.joined:
		case <-r.Context().Done():
			return
		}
	}
	if n.feeds.ServeWebhook(w, r) {
		return
	}
	conn := connOf(r)
	conn.Sample = n.sampled(n.requests.count.Add(1))
	n.generation.Load().proxy.Serve(w, r, conn)
}

func connOf(r *http.Request) proxy.Conn {
	info, _ := server.Info(r.Context())
	return proxy.Conn{Remote: info.RemoteAddr.Addr(), TLS: info.TLS, Peer: info.PeerName, RequestID: info.ID, BeforeCut: info.BeforeCut}
}

// peerHandler takes what other nodes send: forwarded requests, and the fleet's own messages. A forwarded request always
// carries a header that clients can't send, so no client can reach the messages through another node.
func (n *Node) peerHandler() http.Handler {
	own := http.NewServeMux()
	own.Handle("/mesh/v1/", n.mesh.Handler())
	own.HandleFunc("POST "+purgePath, n.servePurge)
	own.HandleFunc("POST "+keyPath, n.serveKey)
	own.HandleFunc("POST "+rttPath+"{region}", n.takeRTT)
	own.HandleFunc("POST "+limitsPath, n.takeLimits)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if proxy.IsForwarded(r) {
			n.generation.Load().proxy.Serve(w, r, connOf(r))
			return
		}
		own.ServeHTTP(w, r)
	})
}

// serveAdmin serves the admin API until ctx ends, event streams included.
func (n *Node) serveAdmin(ctx context.Context) error {
	srv := &http.Server{Handler: n.admin.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		n.admin.Close()
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(wait) != nil {
			_ = srv.Close()
		}
	})
	defer stop()
	err := srv.Serve(n.adminListener)
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return fmt.Errorf("the admin API: %w", err)
}

func listenTCP(what, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("can't listen on %s for %s (another process may use it; `ss -ltnp` shows which): %w", addr, what, err)
	}
	return l, nil
}
