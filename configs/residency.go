package configs

import (
	"regexp"
	"slices"
	"strings"
)

// UnknownCountry is the word for clients whose country is not known.
const UnknownCountry = "unknown"

// groups are the words that stand for several countries: the members of the European Union, and of its economic area.
func groups() map[string][]string {
	eu := strings.Fields("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK")
	return map[string][]string{"EU": eu, "EEA": append(slices.Clone(eu), "IS", "LI", "NO")}
}

// CountryCodes are the countries that an entry of a residency's clients means: itself, or a group's members.
func CountryCodes(entry string) []string {
	if members := groups()[entry]; members != nil {
		return members
	}
	return []string{entry}
}

var countryPattern = regexp.MustCompile(`^[A-Z]{2}$`)

// steering checks the order of policy priority.
func (v *validator) steering(path string, s Steering) {
	for i, region := range s.Order {
		v.region(index(path+".order", i), region)
	}
	v.distinct(path+".order", len(s.Order), func(i int) string { return s.Order[i] })
	switch {
	case s.Policy == "priority" && len(s.Order) == 0 && !v.unsure(path+".order"):
		v.fault(path+".policy", "priority needs order, the regions from the first to the last: order: [%s]", strings.Join(v.c.RegionNames(), ", "))
	case s.Policy != "priority" && len(s.Order) > 0 && !v.unsure(path+".policy"):
		v.fault(path+".order", "is for policy: priority only")
	}
	if s.SpillAt <= 0.1 && v.written(path+".spill_at") {
		v.fault(path+".spill_at", "%s leaves no room to come back from, as the load has to fall by 10 points: use 20%% to 100%%", s.SpillAt)
	}
}

// residency checks that each rule names countries, and jurisdictions that some region of the service is under.
func (v *validator) residency(path string, s *Service) {
	known := v.jurisdictions()
	for i, r := range s.Residency {
		at := index(path, i)
		for k, c := range r.Clients {
			if !countryPattern.MatchString(c) && c != UnknownCountry && groups()[c] == nil {
				v.fault(index(at+".clients", k), "%s is no country: write its two-letter code (DE), EU, EEA or unknown", v.show(index(at+".clients", k), c))
			}
		}
		served := false
		for k, j := range r.Jurisdictions {
			if !slices.Contains(known, j) && !v.unsure("regions") {
				v.fault(index(at+".jurisdictions", k), "no region is under %s%s", v.show(index(at+".jurisdictions", k), j), meant(j, known))
				served = true // told already
			}
			for region := range v.c.Regions {
				_, has := s.Pools[region]
				_, any := s.Pools[Any]
				served = served || (has || any) && slices.Contains(v.c.Regions[region].Jurisdictions, j)
			}
		}
		if !served && len(r.Jurisdictions) > 0 && !v.unsure("regions", at) {
			v.fault(at+".jurisdictions", "the service has no pool in any region under them, so these clients could not be served")
		}
	}
}

// jurisdictions are all those that the regions name, sorted.
func (v *validator) jurisdictions() []string {
	var out []string
	for _, r := range v.c.Regions {
		out = append(out, r.Jurisdictions...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
