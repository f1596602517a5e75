package drill

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"landfall/deploy/lab"
	"landfall/gateway/admin"
)

// How long the phases last, and what is promised.
const (
	settle     = 4 * time.Second
	outage     = 6 * time.Second
	comeHome   = 15 * time.Second // bound on the way home
	afterHome  = 3 * time.Second
	dnsPromise = 2 * time.Second
)

// killRegion ends every process of a region at once, then brings it back.
func killRegion(ctx context.Context, s *session) error {
	if err := s.phase(ctx, "before", settle); err != nil {
		return err
	}
	watch := s.watchDNS(ctx)
	defer watch.stop()
	s.say("killing every process of %s", s.target.Name)
	killed := s.now()
	s.account.begin("during", killed)
	if err := s.control.KillRegion(ctx, s.target.Name); err != nil {
		return err
	}
	if err := pause(ctx, outage); err != nil {
		return err
	}
	s.judgeDNS(watch, killed)
	s.report.GapMS = ms(gap(s.account.since(killed.Add(-time.Second), s.target.Name)))
	s.say("bringing %s back", s.target.Name)
	return s.recover(ctx, func() error { return s.control.StartRegion(ctx, s.target.Name) })
}

// drainRegion drains a region by the admin API and undrains it. Nothing breaks, so nobody may notice at all.
func drainRegion(ctx context.Context, s *session) error {
	api := admin.NewClient("http://"+lab.AdminAddr, "", &http.Client{Timeout: 10 * time.Second})
	target := admin.DrainTarget{Kind: "region", Name: s.target.Name}
	if err := s.phase(ctx, "before", settle); err != nil {
		return err
	}
	watch := s.watchDNS(ctx)
	defer watch.stop()
	s.say("draining %s", s.target.Name)
	drained := s.now()
	s.account.begin("during", drained)
	if _, err := api.Drain(ctx, target, admin.DrainSpec{Reason: "drill"}, 0); err != nil {
		return err
	}
	defer func() { // whatever happens, the drill leaves no drain behind
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = api.Undrain(ctx, target, 0)
	}()
	if err := pause(ctx, outage); err != nil {
		return err
	}
	s.judgeDNS(watch, drained)
	s.report.GapMS = ms(gap(s.account.since(drained.Add(-time.Second), s.target.Name)))
	s.judgeEmptied(drained.Add(dnsPromise + lab.TTL + connectionsLeave))
	s.say("undraining %s", s.target.Name)
	err := s.recover(ctx, func() error { _, err := api.Undrain(ctx, target, 0); return err })
	if n := countRetried(s.account.since(time.Time{}, "")); n > 0 {
		s.broke("%d requests needed a second try during a planned drain", n)
	}
	return err
}

// connectionsLeave is how long after the TTL a drained region's connections may take to be told to go.
const connectionsLeave = time.Second

// judgeEmptied checks that nobody is served by the target any more.
func (s *session) judgeEmptied(after time.Time) {
	still := 0
	for _, r := range s.account.since(after, "") {
		if r.region == s.target.Name {
			still++
		}
	}
	if still > 0 {
		s.broke("%d requests were still served by %s after its drain should have emptied it", still, s.target.Name)
	}
}

func countRetried(rs []result) (n int) {
	for _, r := range rs {
		if r.retried {
			n++
		}
	}
	return n
}

// recover mends what the drill broke and waits until the region's clients are served at home again.
func (s *session) recover(ctx context.Context, mend func() error) error {
	began := s.now()
	s.account.begin("after", began)
	if err := mend(); err != nil {
		return err
	}
	for {
		home := slices.ContainsFunc(s.account.since(began, s.target.Name), func(r result) bool {
			return r.err == nil && r.region == s.target.Name && !r.retried
		})
		took := s.now().Sub(began)
		if home {
			s.report.HomeMS = ms(took)
			return pause(ctx, afterHome)
		}
		if took > comeHome {
			s.broke("the clients of %s were not served at home within %s of its return", s.target.Name, comeHome)
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// judgeDNS checks that the name servers stopped naming the target in time.
func (s *session) judgeDNS(w *dnsWatch, since time.Time) {
	last, answers := w.lastNamed()
	took := max(0, last.Sub(since))
	s.report.DNSMS = ms(took)
	switch {
	case answers == 0:
		s.broke("no name server answered while %s was away", s.target.Name)
	case took > dnsPromise:
		s.broke("DNS named %s for %s, longer than %s", s.target.Name, took.Round(time.Millisecond), dnsPromise)
	}
}

// dnsWatch asks the name servers of all other regions, several times a second, where the target's clients should go.
type dnsWatch struct {
	stop func()

	mu      sync.Mutex
	named   time.Time // when an answer last named the target
	answers int
}

const watchInterval = 40 * time.Millisecond

func (s *session) watchDNS(ctx context.Context) *dnsWatch {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	w := &dnsWatch{stop: func() { cancel(); asking.Wait() }}
	var targets []netip.Addr
	for _, n := range s.target.Nodes {
		targets = append(targets, n.Addr)
	}
	for _, r := range s.fleet.Regions {
		if r.Name == s.target.Name {
			continue
		}
		for _, server := range dnsServers(r) {
			asking.Go(func() {
				for pause(ctx, watchInterval) == nil {
					asked := s.now()
					addrs, _, err := query(ctx, server, s.fleet.Host, s.target.Prefix)
					if err != nil {
						continue
					}
					w.saw(asked, slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(targets, a) }))
				}
			})
		}
	}
	return w
}

func (w *dnsWatch) saw(at time.Time, named bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers++
	if named && at.After(w.named) {
		w.named = at
	}
}

func (w *dnsWatch) lastNamed() (time.Time, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.named, w.answers
}
