package lab

import (
	"context"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
)

// sendTraffic sends the lab's trickle of requests from every place until ctx ends, so that there is something to see.
func (l *Lab) sendTraffic(ctx context.Context) error {
	if l.o.Traffic == 0 {
		return nil
	}
	f := l.Fleet()
	roots, err := f.Roots()
	if err != nil {
		return err
	}
	var g errgroup.Group
	for i, r := range f.Regions {
		c := NewClient(f, r, roots, time.Now)
		g.Go(func() error {
			defer c.Close()
			c.Run(ctx, nil, l.o.Traffic, rand.New(rand.NewPCG(uint64(f.PID), uint64(i))), l.countTraffic)
			return nil
		})
	}
	return g.Wait()
}

func (l *Lab) countTraffic(r Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.fleet.Traffic
	t.Requests++
	switch {
	case r.Err != nil:
		t.Failed++
	case r.Retried:
		t.Retried++
	}
}
