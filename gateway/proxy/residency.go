package proxy

import "landfall/routing"

// resident refuses a client whose data must not be handled in this region: DNS names no such region to it, but its
// resolver may have hidden where it is, and then this is the last place to keep the promise. A node that can't tell,
// because the snapshot does not have the service yet, serves.
func (x *exchange) resident() *refusal {
	if len(x.match.service.config.Residency) == 0 || x.p.o.Snapshot == nil {
		return nil
	}
	s := x.p.o.Snapshot()
	service := s.Service(x.match.service.name)
	if service < 0 || !s.Forbidden(service, x.p.self, routing.CountryOf(x.head.country)) {
		return nil
	}
	return &refusal{reason: residency, text: "data of clients of this country is not handled in this region", noPool: true}
}
