package drill

import (
	"fmt"
	"slices"
	"time"
)

// The judgements below each hold one promise against what was seen. A promise that can't be judged is broken.

func (s *session) broke(format string, a ...any) {
	s.report.Broken = append(s.report.Broken, fmt.Sprintf(format, a...))
}

// judgeDNS checks that every name server of the other regions went on answering and stopped naming the target in time.
func (s *session) judgeDNS(w *dnsWatch) {
	struck := s.account.began("during")
	seen, last := w.sights(), time.Duration(0)
	var silent []string
	for server, n := range seen {
		last = max(last, n.named.Sub(struck))
		if n.empty > 0 {
			s.broke("the name server %s gave %d answers without an address", server, n.empty)
		}
		if n.answered.Before(struck.Add(s.dnsPromise)) {
			silent = append(silent, server)
		}
	}
	s.report.DNSMS = ms(last)
	slices.Sort(silent)
	switch {
	case len(seen) == 0:
		s.broke("there was no name server to ask")
	case last > s.dnsPromise:
		s.broke("DNS named %s for %s, longer than %s", s.target.Name, last.Round(time.Millisecond), s.dnsPromise)
	}
	if len(silent) > 0 {
		s.broke("name servers of other regions stopped answering while %s was away: %v", s.target.Name, silent)
	}
}

// judgeEmptied checks that nobody was served by the drained target from a moment on.
func (s *session) judgeEmptied(from time.Time) {
	served, still := 0, 0
	for _, r := range s.account.since(from, "") {
		served++
		if r.Err == nil && r.Region == s.target.Name {
			still++
		}
	}
	switch {
	case still > 0:
		s.broke("%d requests were still served by %s after its drain should have emptied it", still, s.target.Name)
	case served == 0:
		s.broke("no request was answered once the drain of %s should have emptied it, so nothing tells whether it did", s.target.Name)
	}
}

// judgeHome checks that newcomers of the target's place go home from a moment on: all of them, but for one in ten.
func (s *session) judgeHome(from time.Time) {
	all, home := 0, 0
	for _, r := range s.account.since(from, s.target.Name) {
		if !r.Visitor {
			continue
		}
		all++
		if s.atHome(r) {
			home++
		}
	}
	if all-home > all/10 {
		s.broke("only %d of %d newcomers of %s were served at home after its return", home, all, s.target.Name)
	}
}

// judgeGaps checks that no place was without an answer for long, from a second before the target was struck to the end.
func (s *session) judgeGaps(ended time.Time) {
	from := s.account.began("during").Add(-time.Second)
	allowed := s.gapPromise + time.Duration(2*float64(time.Second)/s.o.Rate)
	for _, r := range s.fleet.Regions {
		g := gap(s.account.since(from, r.Name), from, ended)
		if r.Name == s.target.Name {
			s.report.GapMS = ms(g)
		}
		if g > allowed {
			s.broke("the clients of %s were without an answer for %s, longer than %s", r.Name, g.Round(time.Millisecond), allowed.Round(time.Millisecond))
		}
	}
}

// conclude sums the account up and gives the verdict. ended is when the last request was sent.
func (s *session) conclude(ended time.Time) {
	rep := s.report
	rep.fill(s.account)
	if rep.Purge != nil || rep.Offload != nil { // they promise nothing of the other clients
		rep.judge()
		return
	}
	s.judgeGaps(ended)
	if rep.Errors > 0 {
		s.broke("%d requests failed for good", rep.Errors)
	}
	if (rep.Drill == "drain-region" || rep.Drill == "gradual-drain") && rep.Retried > 0 {
		s.broke("%d requests needed a second try during a planned drain", rep.Retried)
	}
	if rep.Requests == 0 {
		s.broke("no request was sent")
	}
	rep.judge()
}
