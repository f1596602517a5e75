package drill

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"landfall/deploy/lab"
)

// dnsWatch asks every name server of the other regions, several times a second, where the target's clients should go.
type dnsWatch struct {
	stop func() // ends it and waits; may be called more than once

	mu   sync.Mutex
	seen map[string]sight // by name server
}

// sight is what a name server said last.
type sight struct {
	answered time.Time // when it was asked the last question that it answered
	named    time.Time // when it was asked the last question that it answered with the target
	empty    int       // answers without an address
}

const watchInterval = 40 * time.Millisecond

func (s *session) watchDNS(ctx context.Context) *dnsWatch {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	w := &dnsWatch{stop: func() { cancel(); asking.Wait() }, seen: map[string]sight{}}
	var targets []netip.Addr
	for _, n := range s.target.Nodes {
		targets = append(targets, n.Addr)
	}
	for _, r := range s.fleet.Regions {
		if r.Name == s.target.Name {
			continue
		}
		for _, server := range s.fleet.NameServers(r) {
			w.seen[server] = sight{}
			asking.Go(func() {
				for pause(ctx, watchInterval) == nil {
					asked := s.now()
					addrs, _, err := lab.Query(ctx, server, s.fleet.Host, s.target.Prefix)
					switch {
					case err == nil:
						w.saw(server, asked, slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(targets, a) }))
					case errors.Is(err, lab.ErrNoAddress):
						w.sawNothing(server)
					}
				}
			})
		}
	}
	return w
}

func (w *dnsWatch) saw(server string, asked time.Time, named bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.seen[server]
	n.answered = asked
	if named {
		n.named = asked
	}
	w.seen[server] = n
}

func (w *dnsWatch) sawNothing(server string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.seen[server]
	n.empty++
	w.seen[server] = n
}

// sights are what every name server that is watched said so far.
func (w *dnsWatch) sights() map[string]sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]sight{}
	for k, v := range w.seen {
		out[k] = v
	}
	return out
}
