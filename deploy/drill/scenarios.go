package drill

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"landfall/deploy/lab"
	"landfall/gateway/admin"
)

// killRegion ends every process of a region at once, then brings it back.
func killRegion(ctx context.Context, s *session) (err error) {
	if err := s.phase(ctx, "before", s.settle); err != nil {
		return err
	}
	watch := s.watchDNS(ctx)
	defer watch.stop()
	s.say("killing every process of %s", s.target.Name)
	s.struck()
	defer func() { // whatever happens, the drill leaves no dead region behind
		if err != nil {
			_ = s.control.StartRegion(context.WithoutCancel(ctx), s.target.Name)
		}
	}()
	if err := s.control.KillRegion(ctx, s.target.Name); err != nil {
		return err
	}
	if err := pause(ctx, s.outage); err != nil {
		return err
	}
	s.judgeDNS(watch)
	s.say("bringing %s back", s.target.Name)
	return s.recover(ctx, func() error { return s.control.StartRegion(ctx, s.target.Name) })
}

// drainRegion drains a region by the admin API and undrains it. Nothing breaks, so nobody may notice at all.
func drainRegion(ctx context.Context, s *session) (err error) {
	api := admin.NewClient(s.fleet.Admin, "", &http.Client{Timeout: controlPatience})
	defer api.Close()
	target := admin.DrainTarget{Kind: admin.DrainRegion, Name: s.target.Name}
	if err := s.phase(ctx, "before", s.settle); err != nil {
		return err
	}
	watch := s.watchDNS(ctx)
	defer watch.stop()
	s.say("draining %s", s.target.Name)
	drained := s.struck()
	undrain := func(ctx context.Context) error { _, err := api.Undrain(ctx, target, 0); return err }
	defer func() { // whatever happens, the drill leaves no drain behind
		if err != nil {
			err = errors.Join(err, undrain(context.WithoutCancel(ctx)))
		}
	}()
	if _, err := api.Drain(ctx, target, admin.DrainSpec{Reason: "drill"}, 0); err != nil {
		return err
	}
	if err := pause(ctx, s.outage); err != nil {
		return err
	}
	s.judgeDNS(watch)
	s.judgeEmptied(drained.Add(max(s.dnsPromise+s.ttl, s.dnsWait) + s.leave))
	s.say("undraining %s", s.target.Name)
	return s.recover(ctx, func() error { return undrain(ctx) })
}

// struck begins the phase in which the region is away.
func (s *session) struck() time.Time {
	now := s.now()
	s.account.begin("during", now)
	return now
}

// recover mends what the drill broke and waits until the region's clients are served at home again.
func (s *session) recover(ctx context.Context, mend func() error) error {
	began := s.now()
	s.account.begin("after", began)
	if err := mend(); err != nil {
		return err
	}
	for from := began; s.now().Sub(from) <= s.comeHome && s.now().Sub(began) <= restPatience; {
		if s.waitedOut(ctx) {
			from = s.now() // what the fleet does on purpose does not count
		}
		if slices.ContainsFunc(s.account.since(began, s.target.Name), s.atHome) {
			home := s.now()
			s.report.HomeMS = new(ms(home.Sub(began)))
			if err := pause(ctx, s.afterHome); err != nil {
				return err
			}
			s.judgeHome(home.Add(s.ttl + s.leave))
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	s.broke("the clients of %s were not served at home within %s of its return", s.target.Name, s.comeHome)
	return nil
}

// atHome tells that a newcomer of the target's place was served by the target at the first try.
func (s *session) atHome(r lab.Result) bool {
	return r.Visitor && r.Err == nil && !r.Retried && r.Region == s.target.Name
}
