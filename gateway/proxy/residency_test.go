package proxy

import (
	"strings"
	"testing"

	"landfall/configs"
	"landfall/routing"
	"landfall/routing/geo"
)

// forbidding is everything up, with clients of a country kept in one region.
func forbidding(c *configs.Config, country, allowed string) *routing.Snapshot {
	s := *allUp(c)
	rule := routing.Rule{Strict: true}
	rule.Clients.Add(routing.CountryOf(country))
	for _, r := range s.Regions {
		rule.Allowed = append(rule.Allowed, r.Name == allowed)
	}
	for i := range s.Services {
		s.Services[i].Rules = []routing.Rule{rule}
	}
	return routing.NewSnapshot(s)
}

// A node that a request is forwarded to keeps the promise of residency by the country that the first node found, though
// it may know nothing of the client itself; and one of whom nothing is known there is not taken for unknown.
func TestResidencyHoldsForForwardedRequests(t *testing.T) {
	p := newPair(t, strings.Replace(two(refusing(t), origin(t, served("us"))), "debug: true", "debug: true\n    residency: [{clients: [DE], jurisdictions: [eu], strict: true}]", 1)+"")
	p.eu.place = geo.Place{Country: "DE"}
	p.eu.down()
	strict := forbidding(p.us.proxy.o.Config, "DE", "eu")
	p.us.proxy.o.Snapshot = func() *routing.Snapshot { return strict }
	if resp, body := p.eu.get("GET", "/"); resp.StatusCode < 500 || strings.Contains(body, "by us") {
		t.Errorf("a client of DE was served by us: %d %s", resp.StatusCode, body)
	}
	unknown := *strict
	unknown.Services = []routing.Service{strict.Services[0]}
	rule := strict.Services[0].Rules[0]
	rule.Clients = routing.Countries{}
	rule.Clients.Add(0)
	unknown.Services[0].Rules = []routing.Rule{rule}
	strict = &unknown
	if resp, body := p.eu.get("GET", "/again"); resp.StatusCode != 200 || !strings.Contains(body, "by us") {
		t.Errorf("a client of DE counts as unknown: %d %s", resp.StatusCode, body)
	}
}
