package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"landfall/gateway/admin"
	"landfall/routing/mesh"
)

const (
	// purgePace is the least time between two registers; what comes meanwhile shares the next. It grows with the fleet, since
	// each register is a question to every node.
	purgePace    = 3 * time.Millisecond
	purgePaceFor = 10 // nodes
	purgeTimeout = 10 * time.Second

	maxPurgeSlots   = 128
	minPurgeSlots   = 16
	allPurgeSlots   = mesh.MaxRegisters * 6 / 10 // of the whole fleet
	purgeAskTimeout = 5 * time.Second
)

// purgeJob is one purge on its way, as the one who asked for it waits for it.
type purgeJob struct {
	records []purgeRecord
	scope   []mesh.Member // whose word is waited for

	mu    sync.Mutex
	nodes map[string]*purgeTally
	open  int // nodes that have not told of all parts
	dry   int // parts that are not on this node's disk
	err   error
	done  chan struct{}
}

// purgeTally is what one node has told.
type purgeTally struct {
	parts    int // still to be told
	removed  int
	counting bool
	err      error
}

func newPurgeJob(records []purgeRecord, scope []mesh.Member) *purgeJob {
	j := &purgeJob{records: records, scope: scope, nodes: map[string]*purgeTally{}, open: len(scope), dry: len(records), done: make(chan struct{})}
	for _, m := range scope {
		j.nodes[m.Name] = &purgeTally{parts: len(records)}
	}
	return j
}

func (j *purgeJob) parts() []purgePart {
	var out []purgePart
	for _, r := range j.records {
		out = append(out, purgePart{job: j, record: r})
	}
	return out
}

// tell enters a node's word on one part.
func (j *purgeJob) tell(node string, removed int, counting bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.nodes[node]
	if t == nil || t.parts == 0 {
		return
	}
	t.parts--
	t.removed += removed
	t.counting = t.counting || counting
	t.err = cmp.Or(t.err, err)
	if t.parts > 0 {
		return
	}
	j.open--
	j.settle()
}

// onDisk enters that a part is on this node's disk.
func (j *purgeJob) onDisk() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dry--
	j.settle()
}

// settle ends the waiting when nothing is waited for any more. Callers hold mu.
func (j *purgeJob) settle() {
	if j.open == 0 && j.dry == 0 && j.err == nil {
		close(j.done)
	}
}

func (j *purgeJob) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil && j.open+j.dry > 0 {
		j.err = err
		close(j.done)
	}
}

// wait returns when all nodes in scope have told, ctx ends, or, with an error, the purge could not be written.
func (j *purgeJob) wait(ctx context.Context) error {
	select {
	case <-j.done:
	case <-ctx.Done():
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

func (j *purgeJob) result(req admin.PurgeRequest, p purgeRecord) admin.PurgeResult {
	res := admin.PurgeResult{
		ID: p.ID, Service: p.Service, URLs: req.URLs, Prefixes: req.Prefixes, Hosts: req.Hosts, Keys: req.Keys, All: req.All,
		Soft: p.Soft, By: p.By, Issued: p.Issued,
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, m := range j.scope {
		t := j.nodes[m.Name]
		switch {
		case m.Self && j.dry > 0:
			res.Missing = append(res.Missing, admin.PurgeMissing{Node: m.Name, Region: m.Region, Reason: errNotOnDisk.Error()})
		case t.err != nil:
			res.Missing = append(res.Missing, admin.PurgeMissing{Node: m.Name, Region: m.Region, Reason: t.err.Error()})
		case t.parts > 0:
			res.Missing = append(res.Missing, admin.PurgeMissing{Node: m.Name, Region: m.Region, Reason: errNotYet.Error()})
		default:
			res.Removed += t.removed
			res.Counting = res.Counting || t.counting
			res.Applied = append(res.Applied, admin.PurgeApplied{Node: m.Name, Region: m.Region, Removed: t.removed, Counting: t.counting})
		}
	}
	slices.SortFunc(res.Applied, func(a, b admin.PurgeApplied) int { return cmp.Compare(a.Node, b.Node) })
	slices.SortFunc(res.Missing, func(a, b admin.PurgeMissing) int { return cmp.Compare(a.Node, b.Node) })
	return res
}

var (
	errNotYet    = errors.New("it has not said that it applied the purge; it will as soon as it hears of it")
	errNotOnDisk = errors.New("the purge is not on its disk yet")
)

// purgePart is one record on its way.
type purgePart struct {
	job    *purgeJob
	record purgeRecord
}

// purgeWriter writes this node's purges into its ring of registers: what comes while others are on their way shares a
// register, so that a thousand purges a second are a few dozen writes to disk and messages. It is safe for concurrent
// use.
type purgeWriter struct {
	writer string // the node's name and boot
	fleet  fleet
	ask    func(ctx context.Context, m mesh.Member, keys []string) ([]purgeTold, error)

	ctx    context.Context // of all that is on its way
	cancel context.CancelFunc
	flying sync.WaitGroup

	mu      sync.Mutex
	queue   []purgePart
	loading bool // a goroutine takes what is queued
	seq     uint64
	slots   uint64 // size of the ring; 0: not chosen yet
	closed  bool
	sending map[uint64]struct{} // numbers on their way
	sent    sync.Cond           // one of them has arrived
}

func newPurgeWriter(writer string, f fleet, ask func(context.Context, mesh.Member, []string) ([]purgeTold, error)) *purgeWriter {
	w := &purgeWriter{writer: writer, fleet: f, ask: ask, sending: map[uint64]struct{}{}}
	w.sent.L = &w.mu
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// close gives up what is on its way and waits for it.
func (w *purgeWriter) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.flying.Wait()
}

// run runs f until it ends, at the latest when the writer is closed; false: it is.
func (w *purgeWriter) run(f func(context.Context)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.flying.Go(func() { f(w.ctx) })
	}
	return !w.closed
}

func (w *purgeWriter) submit(j *purgeJob) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		j.fail(errors.New("this node is stopping"))
		return
	}
	w.queue = append(w.queue, j.parts()...)
	if !w.loading {
		w.loading = true
		w.flying.Go(w.depart)
	}
}

// depart sends registers, one a pace, until nothing is left to send.
func (w *purgeWriter) depart() {
	pace := time.NewTimer(0)
	defer pace.Stop()
	<-pace.C
	for {
		w.mu.Lock()
		parts, batch := w.load()
		if len(parts) == 0 {
			w.loading = false
			w.mu.Unlock()
			return
		}
		full := len(w.queue) > 0
		w.mu.Unlock()
		w.flying.Go(func() { w.send(parts, batch) })
		if full {
			continue
		}
		pace.Reset(purgePace * time.Duration(max(1, len(w.fleet.Members())/purgePaceFor)))
		<-pace.C
	}
}

// wrapped tells whether the next register would take the place of one that is still on its way.
func (w *purgeWriter) wrapped() bool {
	if w.slots == 0 { // for good, as the place of a register follows from it; the rings of all nodes must fit
		w.slots = uint64(max(minPurgeSlots, min(maxPurgeSlots, allPurgeSlots/max(1, len(w.fleet.Members())))))
	}
	for seq := range w.sending {
		if w.seq+1-seq >= w.slots {
			return true
		}
	}
	return false
}

// load takes what fits into one register off the queue, and numbers it.
func (w *purgeWriter) load() (parts []purgePart, batch purgeBatch) {
	for len(w.queue) > 0 && w.wrapped() {
		w.sent.Wait()
	}
	size := 0
	for len(w.queue) > 0 {
		n := len(encodePurge(w.queue[0].record)) + 1
		if size+n > purgeBatchBytes && len(parts) > 0 {
			break
		}
		size += n
		parts = append(parts, w.queue[0])
		batch.Records = append(batch.Records, w.queue[0].record)
		w.queue = w.queue[1:]
	}
	if len(parts) == 0 {
		return nil, batch
	}
	w.seq++
	w.sending[w.seq] = struct{}{}
	batch.Seq, batch.First = w.seq, 1
	if w.seq > w.slots {
		batch.First = w.seq - w.slots + 1
	}
	return parts, batch
}

func (w *purgeWriter) send(parts []purgePart, batch purgeBatch) {
	ctx, cancel := context.WithTimeout(w.ctx, purgeTimeout)
	defer cancel()
	key := fmt.Sprintf("%s%s/%d", purgePrefix, w.writer, batch.Seq%w.slots)
	var scope []mesh.Member
	for _, p := range parts {
		for _, m := range p.job.scope {
			if !slices.ContainsFunc(scope, func(o mesh.Member) bool { return o.Name == m.Name }) {
				scope = append(scope, m)
			}
		}
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { w.askAll(asking, scope, parts) })
	onDisk := func() {
		for _, p := range parts {
			p.job.onDisk()
		}
	}
	if _, err := w.fleet.Spread(ctx, key, encodePurge(batch), purgeTTL, onDisk); err != nil {
		for _, p := range parts {
			p.job.fail(err)
		}
		stop()
	}
	wg.Wait()
	w.mu.Lock()
	delete(w.sending, batch.Seq)
	w.sent.Broadcast()
	w.mu.Unlock()
}

// askAll asks nodes what records took there, once they have applied them, and tells the jobs.
func (w *purgeWriter) askAll(ctx context.Context, scope []mesh.Member, parts []purgePart) {
	keys := make([]string, len(parts))
	for i, p := range parts {
		keys[i] = p.record.key()
	}
	var wg sync.WaitGroup
	for _, m := range scope {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, purgeAskTimeout)
			defer cancel()
			told, err := w.ask(ctx, m, keys)
			for i, p := range parts {
				switch {
				case err != nil:
					p.job.tell(m.Name, 0, false, err)
				case i < len(told) && told[i].Applied:
					p.job.tell(m.Name, told[i].Removed, told[i].Counting, nil)
				default:
					p.job.tell(m.Name, 0, false, errNotYet)
				}
			}
		})
	}
	wg.Wait()
}
