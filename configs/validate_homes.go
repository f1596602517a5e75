package configs

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// homes checks where a service's writes and users belong.
func (v *validator) homes(path string, s *Service) {
	if s.Primary != "" {
		v.region(path+".primary", s.Primary)
		v.hasPool(path+".primary", s, s.Primary)
	}
	if s.ReadYourWrites > 0 && s.Primary == "" && !v.unsure(path+".primary") {
		v.fault(path+".read_your_writes", "needs primary, the region that such reads go to")
	}
	a, at := s.Affinity, path+".affinity"
	if a == nil {
		return
	}
	if !sourceKnown(a.By) && a.By != "" || a.By == "url" {
		v.fault(at+".by", "%s is not one of client, header:NAME or cookie:NAME", v.show(at+".by", a.By))
	}
	for key, ring := range map[string]map[string]int{"regions": a.Regions, "next": a.Next} {
		if ring != nil && len(ring) == 0 && v.written(at+"."+key) {
			v.fault(at+"."+key, "must not be empty, as nobody would have a home: leave out the key")
		}
		for _, name := range slices.Sorted(maps.Keys(ring)) {
			v.region(join(at+"."+key, name), name)
			v.hasPool(join(at+"."+key, name), s, name)
		}
	}
	if a.Next != nil && maps.Equal(a.Next, a.Regions) {
		v.fault(at+".next", "is the same as regions: nobody would move")
	}
	v.lookup(at, a)
}

// hasPool holds that a region which is to serve requests can.
func (v *validator) hasPool(path string, s *Service, region string) {
	_, own := s.Pools[region]
	_, any := s.Pools[Any]
	if !own && !any && slices.Contains(v.c.RegionNames(), region) {
		v.fault(path, "the service has no pool in %s", region)
	}
}

func (v *validator) lookup(at string, a *Affinity) {
	switch {
	case a.Home == "lookup" && a.Lookup == nil && !v.unsure(at+".lookup"):
		v.fault(at+".home", "lookup needs the service that says so: lookup: {url: ...}")
	case a.Home == "hash" && a.Lookup != nil && !v.unsure(at+".home"):
		v.fault(at+".lookup", "means nothing with home: hash; write home: lookup, or leave it out")
	}
	if a.Lookup == nil || a.Lookup.URL == "" {
		return
	}
	path := at + ".lookup.url"
	u, err := url.Parse(strings.ReplaceAll(a.Lookup.URL, "{key}", "key"))
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil:
		v.fault(path, "is not an http or https URL such as http://users.internal:8080/homes/{key}")
	case !strings.Contains(a.Lookup.URL, "{key}") || strings.Contains(u.Host, "key") && strings.Contains(strings.SplitN(a.Lookup.URL, "/", 4)[2], "{key}"):
		v.fault(path, "needs {key} in its path or query, where the user's key goes")
	}
}
