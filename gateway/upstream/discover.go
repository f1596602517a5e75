package upstream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// discovery keeps a pool's members in step with what its sources say. What can't be resolved keeps its last good members,
// and says so: an origin that works does not stop because a name server does.
type discovery struct {
	pool    *Pool
	fixed   []Member
	sources []source
	resolve *resolver
	found   [][]Member // by source, the last good
	failing []bool     // by source, as it was told
	hear    func()     // of other members; nil: nobody
	stop    context.CancelFunc
	done    chan struct{}
}

// firstPatience is how long a new pool waits for its sources before it begins without them.
const firstPatience = 2 * time.Second

// discover begins to follow the sources among a pool's origins, when there are any.
func (p *Pool) discover(list []Member) {
	d := &discovery{pool: p, resolve: &resolver{servers: p.o.nameServers}, done: make(chan struct{})}
	for _, m := range list {
		if s, ok := parseSource(m.URL); ok {
			s.weight = max(m.Weight, 1)
			d.sources = append(d.sources, s)
		} else {
			d.fixed = append(d.fixed, m)
		}
	}
	if p.o.File != "" {
		d.sources = append(d.sources, source{url: p.o.File, file: &fileSource{path: p.o.File, every: p.o.fileEvery}})
	}
	if len(d.sources) == 0 {
		p.SetMembers(list)
		return
	}
	d.found, d.failing = make([][]Member, len(d.sources)), make([]bool, len(d.sources))
	var ctx context.Context
	ctx, d.stop = context.WithCancel(context.Background())
	p.discovery = d
	soon, cancel := context.WithTimeout(ctx, firstPatience)
	defer cancel()
	next := make([]time.Time, len(d.sources))
	d.look(soon, next, time.Now())
	d.hear = p.o.OnMembers
	go d.run(ctx, next)
}

// run looks each source up when what it said is over.
func (d *discovery) run(ctx context.Context, next []time.Time) {
	defer close(d.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(slices.MinFunc(next, time.Time.Compare)))
		select {
		case <-ctx.Done():
			return
		case now := <-timer.C:
			d.look(ctx, next, now)
		}
	}
}

// look resolves the sources that are due and puts the members into force.
func (d *discovery) look(ctx context.Context, next []time.Time, now time.Time) {
	for i, s := range d.sources {
		if next[i].After(now) {
			continue
		}
		found, ttl, err := d.resolve.find(ctx, s)
		if ctx.Err() != nil && err != nil && len(d.found[i]) > 0 {
			return
		}
		if err != nil {
			if ttl = retryTTL; s.file != nil {
				ttl = s.file.every
			}
			if !d.failing[i] {
				d.pool.tell("pool.unresolved", d.pool.subject(), fmt.Sprintf("%s: %v; its last %d origins stay", s.url, err, len(d.found[i])))
			}
		} else {
			d.found[i] = found
			if d.failing[i] {
				d.pool.tell("pool.resolved", d.pool.subject(), fmt.Sprintf("%s has %d origins", s.url, len(found)))
			}
		}
		d.failing[i] = err != nil
		next[i] = time.Now().Add(ttl)
	}
	wanted := slices.Clone(d.fixed)
	for _, found := range d.found {
		wanted = append(wanted, found...)
	}
	if d.changes(wanted) {
		d.pool.SetMembers(wanted)
		if d.hear != nil {
			d.hear()
		}
	}
}

// changes tells whether the members would be others than they are.
func (d *discovery) changes(wanted []Member) bool {
	var have, want []string
	for _, o := range d.pool.members.Load().list {
		have = append(have, fmt.Sprint(o.name, " ", o.weight.Load()))
	}
	for _, m := range wanted {
		want = append(want, fmt.Sprint(m.URL, " ", max(m.Weight, 1)))
	}
	slices.Sort(have)
	slices.Sort(want)
	return strings.Join(have, "\n") != strings.Join(slices.Compact(want), "\n")
}

// close ends the lookups and waits for the one under way.
func (d *discovery) close() {
	d.stop()
	<-d.done
}
