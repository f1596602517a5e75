package configs

import (
	"errors"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// zoneRecords checks a zone's static part: by itself, and against the names that are answered otherwise.
func (v *validator) zoneRecords(path, zone string, z Zone, nameservers []string) {
	at := join(path, "records")
	records, err := ParseRecords(zone, z.Records)
	for _, e := range recordErrors(err) {
		v.fault(index(at, e.Item), "%s", e.Msg)
	}
	hosts := v.hostsWithin(zone)
	for _, r := range records {
		owner := strings.TrimSuffix(r.Owner, ".")
		address := r.Type == mdns.TypeA || r.Type == mdns.TypeAAAA
		where := index(at, r.Item)
		switch {
		case slices.Contains(nameservers, owner) && (address || r.Type == mdns.TypeCNAME || r.Type == mdns.TypeNS):
			v.fault(where, "%s is a name server of the zone: its addresses are those of the nodes", owner)
		case hosts[owner] != "" && (address || r.Type == mdns.TypeCNAME || r.Type == mdns.TypeNS || r.Type == mdns.TypeHTTPS && z.HTTPS):
			v.fault(where, "%s is a host of service %s: its %s is answered by steering", owner, hosts[owner], mdns.Type(r.Type))
		case r.Type == mdns.TypeNS:
			for _, host := range under(owner, hosts, nameservers) {
				v.fault(where, "%s is delegated away, but %s below it is answered here", owner, host)
			}
		}
	}
}

// recordErrors takes the joined errors of ParseRecords apart.
func recordErrors(err error) []*RecordError {
	var out []*RecordError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			var r *RecordError
			if errors.As(e, &r) {
				out = append(out, r)
			}
		}
	}
	return out
}

// hostsWithin are the services' hosts that lie in a zone, each with its service.
func (v *validator) hostsWithin(zone string) map[string]string {
	out := map[string]string{}
	for name, s := range v.c.Services {
		if s == nil {
			continue
		}
		for _, h := range s.Hosts {
			h = strings.ToLower(h)
			if h == zone || strings.HasSuffix(h, "."+zone) {
				out[h] = name
			}
		}
	}
	return out
}

// under are the names that lie below cut, sorted.
func under(cut string, hosts map[string]string, nameservers []string) []string {
	var out []string
	for h := range hosts {
		if strings.HasSuffix(h, "."+cut) {
			out = append(out, h)
		}
	}
	for _, n := range nameservers {
		if strings.HasSuffix(n, "."+cut) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}
