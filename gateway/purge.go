package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"landfall/cache"
	"landfall/gateway/admin"
	"landfall/gateway/proxy"
	"landfall/gateway/upstream"
	"landfall/routing/mesh"
)

// A purge is a register: durable before it is acknowledged, pushed to every node at once, repaired by anti-entropy. A
// node applies it once, the moment it hears of it, to all that it stored or began to fetch before that moment, and
// remembers how many objects went. The node that was asked then collects these counts.

const (
	purgePrefix = "purge/"
	purgePath   = "/landfall/v1/purged"

	// purgeTTL is how long a purge is repaired to nodes that missed it, as long as a deleted register is remembered.
	purgeTTL = mesh.TombstoneTTL
	// maxPurges bounds the registers that purges hold, so that there is always room for a drain.
	maxPurges = mesh.MaxRegisters * 8 / 10

	purgeRecordBytes = 3 << 10 // URLs a register, well under mesh.MaxValue
	maxPurgeURL      = admin.MaxURL
	purgeLogSize     = mesh.MaxRegisters
)

// purgeRecord is one register of a purge. A purge of many URLs has several.
type purgeRecord struct {
	ID      string    `json:"id"`
	Part    int       `json:"part"`
	Parts   int       `json:"parts"`
	Service string    `json:"service"`
	URLs    []string  `json:"urls"`
	Soft    bool      `json:"soft,omitempty"`
	By      string    `json:"by"`
	Issued  time.Time `json:"issued"`
}

func (p purgeRecord) key() string { return fmt.Sprintf("%s%s/%d", purgePrefix, p.ID, p.Part) }

// purgeLog remembers what each purge removed on this node. It is bounded: the oldest is forgotten first.
type purgeLog struct {
	mu      sync.Mutex
	removed map[string]int
	order   []string
}

func newPurgeLog() *purgeLog { return &purgeLog{removed: map[string]int{}} }

// once runs do for a key that it has not seen, and remembers its result.
func (l *purgeLog) once(key string, do func() int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, seen := l.removed[key]; seen {
		return
	}
	if len(l.order) >= purgeLogSize {
		delete(l.removed, l.order[0])
		l.order = l.order[1:]
	}
	l.order = append(l.order, key)
	l.removed[key] = do()
}

// count is what a purge of so many parts removed here; false while some part has not been applied.
func (l *purgeLog) count(id string, parts int) (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for part := range parts {
		n, ok := l.removed[purgeRecord{ID: id, Part: part}.key()]
		if !ok {
			return 0, false
		}
		total += n
	}
	return total, true
}

// onRegister acts on a register that is new to this node.
func (n *Node) onRegister(r mesh.Register) {
	if !strings.HasPrefix(r.Key, purgePrefix) || r.Value == nil {
		n.kick() // a drain
		return
	}
	var p purgeRecord
	if err := json.Unmarshal(r.Value, &p); err != nil || p.key() != r.Key {
		n.event("purge.unreadable", r.Key, "another version of landfall wrote it; this node may serve what it purged")
		return
	}
	n.purges.once(r.Key, func() int { return n.applyPurge(p) })
}

func (n *Node) applyPurge(p purgeRecord) (removed int) {
	// Not the record's own time: a clock that is behind the writer's would let through what was fetched before the purge.
	now := n.o.Now()
	for _, u := range p.URLs {
		host, path, query, err := proxy.NormalURL(u)
		if err != nil {
			continue // the node that accepted it has checked it
		}
		removed += n.cache.Purge(cache.Purge{Service: p.Service, Host: host, Path: path, RawQuery: query, Soft: p.Soft, Issued: now})
	}
	n.event("purge.applied", p.Service, fmt.Sprintf("%d objects went for %d URLs (purge %s by %s)", removed, len(p.URLs), p.ID, p.By))
	return removed
}

// Purge implements admin.Purges.
func (b backend) Purge(ctx context.Context, req admin.PurgeRequest, by string) (admin.PurgeResult, error) {
	return b.n.purge(ctx, req.Service, req.URLs, req.Soft, by)
}

// PurgeURL implements proxy.Purger: the PURGE method.
func (n *Node) PurgeURL(ctx context.Context, service, url string) (removed int, missing []string, err error) {
	res, err := n.purge(ctx, service, []string{url}, false, "PURGE")
	for _, m := range res.Missing {
		missing = append(missing, m.Node)
	}
	return res.Removed, missing, err
}

func (n *Node) purge(ctx context.Context, service string, urls []string, soft bool, by string) (admin.PurgeResult, error) {
	started := n.o.Now()
	records, err := n.purgeRecords(service, urls, soft, by, started)
	if err != nil {
		return admin.PurgeResult{}, err
	}
	if held := len(n.fleet.Registers(purgePrefix)); held+len(records) > maxPurges {
		return admin.PurgeResult{}, admin.Unavailable(fmt.Sprintf("%d purges of the last %s are remembered, which is all that fit; purge more URLs at once, or later", held, purgeTTL))
	}
	for _, p := range records {
		value, err := json.Marshal(p)
		if err != nil {
			return admin.PurgeResult{}, err
		}
		if _, err := n.fleet.Set(ctx, p.key(), value, purgeTTL); err != nil {
			return admin.PurgeResult{}, fmt.Errorf("the purge could not be made durable; what part %d of %d on names was not purged: %w", p.Part+1, p.Parts, err)
		}
	}
	res := n.collect(ctx, records[0], urls)
	if len(res.Missing) == 0 {
		n.metrics.node.purges.Observe(n.o.Now().Sub(started).Seconds())
	}
	return res, nil
}

// purgeRecords cuts a purge into registers, and checks each URL against the service that it is said to be of.
func (n *Node) purgeRecords(service string, urls []string, soft bool, by string, now time.Time) ([]purgeRecord, error) {
	p := n.generation.Load().proxy
	id := newID()
	var out []purgeRecord
	size := purgeRecordBytes
	for i, u := range urls {
		field := fmt.Sprintf("urls[%d]", i)
		host, _, _, err := proxy.NormalURL(u)
		if err != nil {
			return nil, admin.Invalid(field, err.Error())
		}
		if owner, ok := p.ServiceOf(host); !ok || owner != service {
			return nil, admin.Invalid(field, fmt.Sprintf("%s is not a host of service %s", host, service))
		}
		if len(u) > maxPurgeURL {
			return nil, admin.Invalid(field, fmt.Sprintf("longer than %d bytes", maxPurgeURL))
		}
		if size+len(u) > purgeRecordBytes {
			out = append(out, purgeRecord{ID: id, Part: len(out), Service: service, Soft: soft, By: by, Issued: now.UTC()})
			size = 0
		}
		last := &out[len(out)-1]
		last.URLs = append(last.URLs, u)
		size += len(u)
	}
	if len(out) == 0 {
		return nil, admin.Invalid("urls", "name at least one URL")
	}
	for i := range out {
		out[i].Parts = len(out)
	}
	return out, nil
}

// collect asks every live node what the purge removed there.
func (n *Node) collect(ctx context.Context, p purgeRecord, urls []string) admin.PurgeResult {
	res := admin.PurgeResult{ID: p.ID, Service: p.Service, URLs: urls, Soft: p.Soft, By: p.By, Issued: p.Issued}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, m := range n.fleet.Members() {
		if !(member{Member: m}).here() {
			continue
		}
		asking.Go(func() {
			removed, err := n.purgedOn(ctx, m, p)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				res.Missing = append(res.Missing, admin.PurgeMissing{Node: m.Name, Region: m.Region, Reason: err.Error()})
				return
			}
			res.Removed += removed
			res.Applied = append(res.Applied, admin.PurgeApplied{Node: m.Name, Region: m.Region, Removed: removed})
		})
	}
	asking.Wait()
	slices.SortFunc(res.Applied, func(a, b admin.PurgeApplied) int { return cmp.Compare(a.Node, b.Node) })
	slices.SortFunc(res.Missing, func(a, b admin.PurgeMissing) int { return cmp.Compare(a.Node, b.Node) })
	return res
}

// purgeQuestion asks a node for the count of a purge.
type purgeQuestion struct {
	ID    string `json:"id"`
	Parts int    `json:"parts"`
}

type purgeAnswer struct {
	Applied bool `json:"applied"`
	Removed int  `json:"removed"`
}

func (n *Node) purgedOn(ctx context.Context, m mesh.Member, p purgeRecord) (int, error) {
	a := purgeAnswer{}
	if m.Self {
		a.Removed, a.Applied = n.purges.count(p.ID, p.Parts)
	} else if err := n.ask(ctx, m.Name, purgePath, purgeQuestion{p.ID, p.Parts}, &a); err != nil {
		return 0, err
	}
	if !a.Applied {
		return 0, errNotYet
	}
	return a.Removed, nil
}

var errNotYet = fmt.Errorf("it has not applied the purge yet; it will as soon as it is heard")

// ask sends one message to a node over the peer channel.
func (n *Node) ask(ctx context.Context, node, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+node+upstream.PeerDomain+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.peers.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("it can't be reached: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMessage)).Decode(answer); err != nil {
		return fmt.Errorf("its answer can't be read: %w", err)
	}
	return nil
}

// maxMessage bounds a message between two nodes of this package's kinds.
const maxMessage = 64 << 10

// servePurge answers another node's question for the count of a purge.
func (n *Node) servePurge(w http.ResponseWriter, r *http.Request) {
	var q purgeQuestion
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMessage)).Decode(&q)
	if err != nil || q.ID == "" || q.Parts < 1 || q.Parts > purgeLogSize {
		http.Error(w, "not a question about a purge", http.StatusBadRequest)
		return
	}
	a := purgeAnswer{}
	a.Removed, a.Applied = n.purges.count(q.ID, q.Parts)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a) // the asker sees a cut answer as an error
}

// PurgeByID implements admin.Purges: any node knows a purge from its registers, and asks the others anew.
func (b backend) PurgeByID(id string) (admin.PurgeResult, bool) {
	var first purgeRecord
	var urls []string
	for _, r := range b.n.fleet.Registers(purgePrefix + id + "/") {
		var p purgeRecord
		if json.Unmarshal(r.Value, &p) == nil {
			first = p
			urls = append(urls, p.URLs...)
		}
	}
	if first.ID == "" {
		return admin.PurgeResult{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return b.n.collect(ctx, first, urls), true
}
