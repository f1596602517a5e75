package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"landfall/cache"
	"landfall/gateway/admin"
	"landfall/routing/mesh"
)

// A purge is a register: pushed to every node at once, durable before it is acknowledged, repaired by anti-entropy. Each
// node that purges writes a ring of registers, many purges in one (purgewriter.go), and numbers them, so that a node
// that missed some knows it (purgetrack.go). A node applies each once, the moment it hears of it, to all that it stored
// or began to fetch before that moment, and remembers how many objects went (purgelog.go). The node that was asked
// collects these counts.

const (
	purgePrefix = "purge/"

	// purgeTTL is how long a purge is repaired to nodes that missed it; one that was cut off for longer drops all.
	purgeTTL = 24 * time.Hour

	maxPurgeTarget   = admin.MaxURL
	purgeRecordBytes = 3400 // of a record as JSON
	purgeBatchBytes  = 3800 // of a register's value, under mesh.MaxValue with what surrounds the records
	purgeLogSize     = 20_000
)

// purgeRecord is a purge, or a part of one with many targets.
type purgeRecord struct {
	ID       string    `json:"i"`
	Part     int       `json:"p,omitempty"`
	Parts    int       `json:"n,omitempty"`
	Service  string    `json:"s"`
	URLs     []string  `json:"u,omitempty"`
	Prefixes []string  `json:"x,omitempty"`
	Hosts    []string  `json:"h,omitempty"`
	Keys     []string  `json:"k,omitempty"`
	Groups   []string  `json:"g,omitempty"` // cache groups of Origin
	Origin   string    `json:"o,omitempty"` // scheme, host and port
	All      bool      `json:"a,omitempty"`
	Soft     bool      `json:"f,omitempty"`
	By       string    `json:"b"`
	Issued   time.Time `json:"t"`
}

func (p purgeRecord) key() string { return fmt.Sprintf("%s/%d", p.ID, p.Part) }

func (p purgeRecord) targets() int {
	n := len(p.URLs) + len(p.Prefixes) + len(p.Hosts) + len(p.Keys) + len(p.Groups)
	if p.All {
		n++
	}
	return n
}

// purgeBatch is the value of a register.
type purgeBatch struct {
	Seq     uint64        `json:"seq"`   // of the writer's registers since it started, from 1
	First   uint64        `json:"first"` // the oldest that its ring still holds
	Records []purgeRecord `json:"records"`
}

// onRegister acts on a register that is new to this node.
func (n *Node) onRegister(r mesh.Register) {
	rest, ok := strings.CutPrefix(r.Key, purgePrefix)
	if ok && r.Value == nil {
		return // its time is over
	}
	if !ok {
		n.homing.stale.Store(true)
		n.kick() // a drain
		return
	}
	writer, _, ok := cutLast(rest)
	var batch purgeBatch
	if err := json.Unmarshal(r.Value, &batch); err != nil || !ok || batch.Seq == 0 || batch.First > batch.Seq {
		n.event("purge.unreadable", r.Key, "another version of landfall wrote it, so this node drops all that it has cached")
		n.cache.PurgeEverything()
		return
	}
	n.purgeTrack.take(writer, batch.Seq, batch.First, n.o.Now(), func() { n.applyBatch(batch) })
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// purgesLost drops everything: purges were issued that this node will never hear of.
func (n *Node) purgesLost(why string) {
	if objects := n.cache.PurgeEverything(); objects > 0 {
		n.metrics.node.purgeGaps.Inc()
		n.event("purge.missed", n.id.name, fmt.Sprintf("%s; all %d cached objects were dropped to be safe", why, objects))
	}
}

func (n *Node) applyBatch(batch purgeBatch) {
	for _, p := range batch.Records {
		n.purges.put(p.key(), n.applyPurge(p))
	}
	n.metrics.node.purged.Add(float64(len(batch.Records)))
}

func (n *Node) applyPurge(p purgeRecord) *purgeCount {
	count := &purgeCount{}
	apply := func(q cache.Purge) {
		q.Service, q.Soft = p.Service, p.Soft
		objects, behind := n.cache.Purge(q)
		count.objects += objects
		if behind != nil {
			count.behind = append(count.behind, behind)
		}
	}
	// The node that accepted the purge has checked its targets.
	for _, u := range p.URLs {
		host, path, query, err := n.generation.Load().normalURL(u)
		if err != nil {
			continue
		}
		for _, q := range n.generation.Load().keyQueries(p.Service, path, query) {
			apply(cache.Purge{Host: host, Path: path, RawQuery: q})
		}
	}
	for _, u := range p.Prefixes {
		if host, path, _, err := n.generation.Load().normalURL(u); err == nil {
			apply(cache.Purge{Host: host, Prefix: path})
		}
	}
	for _, host := range p.Hosts {
		apply(cache.Purge{Host: host})
	}
	for _, key := range p.Keys {
		apply(cache.Purge{Key: key})
	}
	for _, name := range p.Groups {
		apply(cache.Purge{Group: name, Origin: p.Origin})
	}
	if p.All {
		apply(cache.Purge{All: true})
	}
	if n.purgeEvents.allow(n.o.Now()) {
		objects, _ := count.load()
		n.event("purge.applied", p.Service, fmt.Sprintf("%s went for %s (purge %s by %s)", plural(objects, "object"), plural(p.targets(), "target"), p.ID, p.By))
	}
	return count
}

// plural is a count of something, for people.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Purge implements admin.Purges.
func (b backend) Purge(ctx context.Context, req admin.PurgeRequest, wait, by string) (admin.PurgeResult, error) {
	return b.n.purge(ctx, req, wait, by)
}

// PurgeURL implements proxy.Purger: the PURGE method.
func (n *Node) PurgeURL(ctx context.Context, service, url string, soft bool) (removed int, missing []string, err error) {
	res, err := n.purge(ctx, admin.PurgeRequest{Service: service, URLs: []string{url}, Soft: soft}, admin.WaitAll, "PURGE")
	for _, m := range res.Missing {
		missing = append(missing, m.Node)
	}
	return res.Removed, missing, err
}

func (n *Node) purge(ctx context.Context, req admin.PurgeRequest, wait, by string) (admin.PurgeResult, error) {
	started := n.o.Now()
	records, err := n.purgeRecords(req, by, started)
	if err != nil {
		return admin.PurgeResult{}, err
	}
	job := newPurgeJob(records, n.purgeScope(wait))
	n.purgeWriter.submit(job)
	if err := job.wait(ctx); err != nil {
		return admin.PurgeResult{}, fmt.Errorf("the purge could not be made durable, so it may hold in part and for a while only; try again: %w", err)
	}
	res := job.result(req, records[0])
	if len(res.Missing) == 0 && wait == admin.WaitAll {
		n.metrics.node.purges.Observe(n.o.Now().Sub(started).Seconds())
	}
	return res, nil
}

// purgeScope are the nodes whose word a purge waits for.
func (n *Node) purgeScope(wait string) []mesh.Member {
	var scope []mesh.Member
	for _, m := range n.fleet.Members() {
		switch {
		case !(member{Member: m}).here(), wait == admin.WaitNode && !m.Self, wait == admin.WaitRegion && m.Region != n.id.region:
		default:
			scope = append(scope, m)
		}
	}
	return scope
}

// purgeRecords cuts a purge into records, and checks each target against the service that it is said to be of.
func (n *Node) purgeRecords(req admin.PurgeRequest, by string, now time.Time) ([]purgeRecord, error) {
	if n.generation.Load().config.Services[req.Service] == nil {
		return nil, admin.Invalid("service", "there is no service "+req.Service)
	}
	base := purgeRecord{ID: newID(), Service: req.Service, Soft: req.Soft, By: by, Issued: now.UTC().Truncate(time.Millisecond)}
	c := purgeCutter{base: base}
	for i, u := range req.URLs {
		if err := n.checkTarget(req.Service, u, fmt.Sprintf("urls[%d]", i)); err != nil {
			return nil, err
		}
		c.add(u, func(r *purgeRecord) *[]string { return &r.URLs })
	}
	for i, u := range req.Prefixes {
		if err := n.checkTarget(req.Service, u, fmt.Sprintf("prefixes[%d]", i)); err != nil {
			return nil, err
		}
		c.add(u, func(r *purgeRecord) *[]string { return &r.Prefixes })
	}
	for i, host := range req.Hosts {
		if err := n.checkTarget(req.Service, "https://"+host+"/", fmt.Sprintf("hosts[%d]", i)); err != nil {
			return nil, err
		}
		c.add(strings.ToLower(host), func(r *purgeRecord) *[]string { return &r.Hosts })
	}
	for _, key := range req.Keys {
		c.add(key, func(r *purgeRecord) *[]string { return &r.Keys })
	}
	if req.All {
		c.records = []purgeRecord{base}
		c.records[0].All = true
	}
	if len(c.records) == 0 {
		return nil, admin.Invalid("urls", "name at least one target: urls, prefixes, hosts, keys, or all")
	}
	for i := range c.records {
		c.records[i].Part, c.records[i].Parts = i, len(c.records)
	}
	return c.records, nil
}

func (n *Node) checkTarget(service, url, field string) error {
	host, _, _, err := n.generation.Load().normalURL(url)
	if err != nil {
		return admin.Invalid(field, err.Error())
	}
	if owner, ok := n.generation.Load().proxy.ServiceOf(host); !ok || owner != service {
		return admin.Invalid(field, fmt.Sprintf("%s is not a host of service %s", host, service))
	}
	if len(encodePurge(url)) > maxPurgeTarget {
		return admin.Invalid(field, fmt.Sprintf("longer than %d bytes", maxPurgeTarget))
	}
	return nil
}

// purgeCutter fills records up to their bound.
type purgeCutter struct {
	base    purgeRecord
	records []purgeRecord
	room    int
}

func (c *purgeCutter) add(target string, list func(*purgeRecord) *[]string) {
	size := len(encodePurge(target)) + 1
	if size > c.room {
		c.records = append(c.records, c.base)
		c.room = purgeRecordBytes - len(encodePurge(c.base)) - 64 // the numbers of its part, and the list's name
	}
	c.room -= size
	l := list(&c.records[len(c.records)-1])
	*l = append(*l, target)
}

// encodePurge is JSON as registers hold it: without the escapes for HTML, which URLs are full of.
func encodePurge(v any) []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return nil // only values of this package are encoded
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}

// PurgeByID implements admin.Purges: any node knows a purge from its registers, and asks the others anew.
func (b backend) PurgeByID(id string) (admin.PurgeResult, bool) {
	var records []purgeRecord
	req := admin.PurgeRequest{}
	for _, r := range b.n.fleet.Registers(purgePrefix) {
		var batch purgeBatch
		if !strings.Contains(string(r.Value), id) || json.Unmarshal(r.Value, &batch) != nil {
			continue
		}
		for _, p := range batch.Records {
			if p.ID == id {
				records = append(records, p)
				req.Service, req.Soft, req.All = p.Service, p.Soft, p.All
				req.URLs, req.Keys = append(req.URLs, p.URLs...), append(req.Keys, p.Keys...)
				req.Prefixes, req.Hosts = append(req.Prefixes, p.Prefixes...), append(req.Hosts, p.Hosts...)
			}
		}
	}
	if len(records) == 0 || len(records) != records[0].Parts {
		return admin.PurgeResult{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	job := newPurgeJob(records, b.n.purgeScope(admin.WaitAll))
	job.dry = 0 // it was written when it was issued
	b.n.purgeWriter.askAll(ctx, job.scope, job.parts())
	if job.wait(ctx) != nil {
		return admin.PurgeResult{}, false
	}
	return job.result(req, records[0]), true
}
