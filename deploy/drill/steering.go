package drill

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"landfall/deploy/lab"
	"landfall/gateway/admin"
)

// The steering drills strike nothing but where clients go. Their crowds come beside the ordinary load, which is kept low.
const steeringRate = 10 // requests a second from each place, at most

// strictResidency kills the only region where a service's clients may go: nobody else may serve them, by DNS or otherwise.
func strictResidency(ctx context.Context, s *session) (err error) {
	if err := s.phase(ctx, "before", s.settle/2); err != nil {
		return err
	}
	host, other := lab.VaultHost, s.other()
	if resp, err := s.direct(ctx, host, s.target.Nodes[0], s.target.Client, 0); err != nil || resp.StatusCode != http.StatusOK {
		s.broke("%s does not serve its own clients of %s: %v", s.target.Name, host, status(resp, err))
	}
	s.say("killing %s, where the clients of %s must stay", s.target.Name, host)
	s.struck()
	defer func() {
		if err != nil {
			_ = s.control.StartRegion(context.WithoutCancel(ctx), s.target.Name)
		}
	}()
	if err := s.control.KillRegion(ctx, s.target.Name); err != nil {
		return err
	}
	asked, named := 0, map[string]int{}
	for ended := s.now().Add(s.outage); s.now().Before(ended); {
		for _, server := range s.fleet.NameServers(other) {
			if region, err := s.steered(ctx, server, host, s.target.Prefix); err == nil {
				asked++
				named[region]++
			}
		}
		resp, err := s.direct(ctx, host, other.Nodes[0], s.target.Client, 0)
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(resp.Header.Get("Proxy-Status"), "landfall") {
			s.broke("a client of %s that asks %s for %s gets %s, not a 503 that says why", s.target.Name, other.Name, host, status(resp, err))
			break
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if asked == 0 || named[s.target.Name] != asked {
		s.broke("DNS sent clients of %s to %v, in %d answers", s.target.Name, named, asked)
	}
	s.fact("%d DNS answers named %s alone, though it was dead; %s refused its clients with 503", named[s.target.Name], s.target.Name, other.Name)
	if err := s.judgeForbidden(ctx, host, other); err != nil {
		return err
	}
	s.say("bringing %s back", s.target.Name)
	s.account.begin("after", s.now())
	if err := s.control.StartRegion(ctx, s.target.Name); err != nil {
		return err
	}
	back, err := s.until(ctx, s.comeHome, func() (bool, error) {
		resp, err := s.direct(ctx, host, s.target.Nodes[0], s.target.Client, 0)
		return err == nil && resp.StatusCode == http.StatusOK, ctx.Err()
	})
	if !back && err == nil {
		s.broke("%s did not serve its clients of %s within %s of its return", s.target.Name, host, s.comeHome)
	}
	return err
}

func status(resp *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return resp.Status
}

// judgeForbidden checks that explain says why, and that clients of the other region are served there.
func (s *session) judgeForbidden(ctx context.Context, host string, other lab.Region) error {
	e, err := s.explain(ctx, host, s.target.Client)
	if err != nil {
		return err
	}
	if r := told(e, other.Name); r.Usable || r.Reason != "residency" {
		s.broke("explain calls %s %q for a client of %s, not forbidden by residency", other.Name, r.Reason, s.target.Name)
	}
	if resp, err := s.direct(ctx, host, other.Nodes[0], other.Client, 0); err != nil || resp.StatusCode != http.StatusOK {
		s.broke("%s does not serve its own clients of %s: %v", other.Name, host, status(resp, err))
	}
	return nil
}

// spillUnderLoad sends a region more than it should take. The excess, and only that, has to go on, and to stay where it went.
func spillUnderLoad(ctx context.Context, s *session) error {
	if err := s.phase(ctx, "before", s.settle/2); err != nil {
		return err
	}
	c, err := s.gather(lab.RushHost, 0, s.crowd)
	if err != nil {
		return err
	}
	defer c.close()
	s.say("a rush of %.0f requests a second at %s, which is full at %d", s.rate, s.target.Name, lab.RushAt)
	s.struck()
	stop := c.rush(ctx, s.rate)
	defer stop()
	if err := pause(ctx, s.rush); err != nil {
		return err
	}
	var low, high float64 = 1, 0
	began := s.now()
	for s.now().Sub(began) < s.watch {
		e, err := s.explain(ctx, lab.RushHost, s.target.Client)
		if err != nil {
			return err
		}
		share := told(e, s.target.Name).Spill
		low, high = min(low, share), max(high, share)
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	took := s.now().Sub(began).Seconds()
	served, asked := map[string]float64{}, 0.0
	for _, r := range s.account.since(began, s.target.Name) {
		served[r.Region] += 1 / took
		asked += 1 / took
	}
	s.fact("%s served %.0f requests a second of %.0f at %s, and sent %.0f%% to %.0f%% of the rush on", s.target.Name, served[s.target.Name],
		asked, s.target.Name, low*100, high*100)
	switch at := served[s.target.Name]; {
	case at > lab.RushAt*1.15:
		s.broke("%s still served %.0f requests a second, more than %d: the excess was not sent on", s.target.Name, at, lab.RushAt)
	case at < 0.4*min(lab.RushAt, asked):
		s.broke("%s served only %.0f requests a second: more than the excess was sent on", s.target.Name, at)
	}
	if high-low > 0.2 {
		s.broke("the share that %s sent on swung from %.2f to %.2f", s.target.Name, low, high)
	}
	return s.judgeSpilled(ctx, c)
}

// judgeSpilled checks that some clients of the crowd are sent on and others are not, and that explain says so and DNS does.
func (s *session) judgeSpilled(ctx context.Context, c *crowd) error {
	kept, sent := 0, 0
	for _, p := range c.prefixes {
		e, err := s.explain(ctx, c.host, p.Addr().Next())
		if err != nil {
			return err
		}
		if len(e.Regions) == 0 || e.Answer == nil || len(e.Answer.Addresses) == 0 {
			s.broke("explain says nothing of %s", p)
			return nil
		}
		home, first := told(e, s.target.Name), e.Regions[0]
		answer, _ := netip.ParseAddr(e.Answer.Addresses[0]) // what can't be read is of no region
		switch {
		case first.Region == s.target.Name:
			kept++
		case home.Reason == "full":
			sent++
		default:
			s.broke("%s goes to %s, and %s is called %q rather than full", p, first.Region, s.target.Name, home.Reason)
		}
		if s.regionOf(answer) != first.Region {
			s.broke("explain calls %s the best for %s, and the answer it shows is %s", first.Region, p, answer)
		}
	}
	s.fact("of the crowd's %d networks %d stay and %d are sent on, as explain tells", len(c.prefixes), kept, sent)
	if kept == 0 || sent == 0 {
		s.broke("%d networks stay and %d are sent on: both should be some", kept, sent)
	}
	return nil
}

// gradualDrain drains a region over some seconds. A growing share of its clients has to leave, each of them once.
func gradualDrain(ctx context.Context, s *session) (err error) {
	api := admin.NewClient(s.fleet.Admin, "", &http.Client{Timeout: controlPatience})
	defer api.Close()
	if err := s.phase(ctx, "before", s.settle/2); err != nil {
		return err
	}
	c, err := s.gather(lab.Host, 100, s.crowd)
	if err != nil {
		return err
	}
	defer c.close()
	target := admin.DrainTarget{Kind: admin.DrainRegion, Name: s.target.Name}
	s.say("draining %s over %s", s.target.Name, s.over)
	drained := s.struck()
	undrain := func(ctx context.Context) error { _, err := api.Undrain(ctx, target, 0); return err }
	defer func() {
		if err != nil {
			err = errors.Join(err, undrain(context.WithoutCancel(ctx)))
		}
	}()
	if _, err := api.Drain(ctx, target, admin.DrainSpec{Reason: "drill", Over: admin.Duration(s.over)}, 0); err != nil {
		return err
	}
	if err := s.followDrain(ctx, c, drained); err != nil {
		return err
	}
	s.say("undraining %s", s.target.Name)
	s.account.begin("after", s.now())
	if err := undrain(ctx); err != nil {
		return err
	}
	server := s.fleet.NameServers(s.other())[0]
	home, err := s.until(ctx, s.comeHome, func() (bool, error) {
		region, err := s.steered(ctx, server, s.fleet.Host, c.prefixes[0])
		return err == nil && region == s.target.Name, ctx.Err()
	})
	if !home && err == nil {
		s.broke("DNS did not name %s to its clients within %s of the undrain", s.target.Name, s.comeHome)
	}
	return err
}

// followDrain watches where DNS sends each network of the crowd until the drain is done.
func (s *session) followDrain(ctx context.Context, c *crowd, drained time.Time) error {
	server := s.fleet.NameServers(s.other())[0]
	last, moves, at := make([]string, len(c.prefixes)), make([]int, len(c.prefixes)), make([]time.Time, len(c.prefixes))
	moved := func() (n int) {
		for i := range last {
			if last[i] != "" && last[i] != s.target.Name {
				n++
			}
		}
		return n
	}
	half := -1.0
	for s.now().Sub(drained) < s.over+s.leave+s.ttl {
		for i, p := range c.prefixes {
			region, err := s.steered(ctx, server, s.fleet.Host, p)
			if err != nil {
				continue // the account tells of DNS that does not answer
			}
			if last[i] != "" && region != last[i] {
				moves[i]++
				at[i] = s.now()
			}
			last[i] = region
		}
		if half < 0 && s.now().Sub(drained) >= s.over/2 {
			half = float64(moved()) / float64(len(last))
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	twice := 0
	for _, n := range moves {
		if n > 1 {
			twice++
		}
	}
	s.fact("half-way %.0f%% of %d networks had been moved, at the end %d", half*100, len(last), moved())
	if half < 0.2 || half > 0.8 {
		s.broke("half-way through the drain %.0f%% of the clients had been moved", half*100)
	}
	if moved() < len(last) {
		s.broke("only %d of %d networks were moved when the drain was done", moved(), len(last))
	}
	if twice > 0 {
		s.broke("%d networks were moved more than once", twice)
	}
	e, err := s.explain(ctx, s.fleet.Host, c.prefixes[0].Addr().Next())
	if err == nil && told(e, s.target.Name).Reason != "drained" {
		s.broke("explain calls %s %q, not drained", s.target.Name, told(e, s.target.Name).Reason)
	}
	return err
}

// learntRTT makes one region slow for one network. What the region measures of it has to lead it elsewhere, and nobody else.
func learntRTT(ctx context.Context, s *session) error {
	if err := s.phase(ctx, "before", s.settle/2); err != nil {
		return err
	}
	c, err := s.gather(s.fleet.Host, 200+int(s.now().Unix()%50), 1) // another network each time: the last one's is remembered
	if err != nil {
		return err
	}
	defer c.close()
	one, prefix, server := c.clients[0], c.prefixes[0], s.fleet.NameServers(s.other())[0]
	if region, err := s.steered(ctx, server, s.fleet.Host, prefix); err != nil || region != s.target.Name {
		s.broke("%s goes to %q by geography, not to %s (%v)", prefix, region, s.target.Name, err)
	}
	s.say("the way from %s to %s takes %s from now on", prefix, s.target.Name, s.slow)
	one.Slow(s.target, s.slow)
	began := s.struck()
	stop := c.rush(ctx, 10)
	defer stop()
	led, err := s.until(ctx, s.learn, func() (bool, error) {
		region, err := s.steered(ctx, server, s.fleet.Host, prefix)
		return err == nil && region != s.target.Name, ctx.Err()
	})
	if err != nil {
		return err
	}
	if !led {
		s.broke("after %s DNS still sends %s to %s, %s away", s.learn, prefix, s.target.Name, s.slow)
		return nil
	}
	s.fact("DNS led %s elsewhere after %.1f s", prefix, s.now().Sub(began).Seconds())
	if err := pause(ctx, s.ttl+s.leave); err != nil {
		return err
	}
	e, err := s.explain(ctx, s.fleet.Host, prefix.Addr().Next())
	if err != nil {
		return err
	}
	home := told(e, s.target.Name)
	if home.DistanceSource != "measured" || home.RTT == nil || e.Regions[0].Region == s.target.Name {
		s.broke("explain does not tell that %s was measured too far for %s: %+v", s.target.Name, prefix, home)
	} else {
		s.fact("explain: %s at %.0f ms (%s), %s first", s.target.Name, *home.RTT, home.DistanceSource, e.Regions[0].Region)
	}
	if e, err = s.explain(ctx, s.fleet.Host, s.target.Client); err != nil {
		return err
	}
	if e.Regions[0].Region != s.target.Name {
		s.broke("the other clients of %s are led to %s as well", s.target.Name, e.Regions[0].Region)
	}
	stop()
	return s.nearAgain(ctx, prefix)
}

// nearAgain lets the region measure the network near once more, after which it has to be led home.
func (s *session) nearAgain(ctx context.Context, prefix netip.Prefix) error {
	s.say("%s is near again", s.target.Name)
	s.account.begin("after", s.now())
	for range 30 { // so that what is known of the wider network is as it was
		if resp, err := s.direct(ctx, s.fleet.Host, s.target.Nodes[0], prefix.Addr().Next(), time.Millisecond); err != nil || resp.StatusCode != http.StatusOK {
			s.broke("%s does not serve %s: %s", s.target.Name, prefix, status(resp, err))
			return nil
		}
	}
	home, err := s.until(ctx, s.learn, func() (bool, error) {
		region, err := s.steered(ctx, s.fleet.NameServers(s.target)[0], s.fleet.Host, prefix)
		return err == nil && region == s.target.Name, ctx.Err()
	})
	if !home && err == nil {
		s.broke("DNS did not lead %s home within %s, though it is near again", prefix, s.learn)
	}
	return err
}
