package routing

import "math/bits"

// Country is an ISO 3166-1 alpha-2 code as a number: 1 for AA up to 676 for ZZ; 0 is a country that is not known.
type Country uint16

// CountryOf reads a code of two capital letters; anything else is not known.
func CountryOf(code string) Country {
	if len(code) != 2 || code[0] < 'A' || code[0] > 'Z' || code[1] < 'A' || code[1] > 'Z' {
		return 0
	}
	return Country(code[0]-'A')*26 + Country(code[1]-'A') + 1
}

// Countries is a set of countries. The zero value is empty.
type Countries [11]uint64

// Add puts a country into the set; 0 stands for clients whose country is not known.
func (s *Countries) Add(c Country) { s[c/64] |= 1 << (c % 64) }

// Has tells whether the set holds c.
func (s *Countries) Has(c Country) bool { return s[c/64]&(1<<(c%64)) != 0 }

// Len is how many countries the set holds.
func (s *Countries) Len() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Rule keeps the data of clients of some countries in some regions.
type Rule struct {
	Clients Countries
	Allowed []bool // by region
	Strict  bool   // the other regions are forbidden; else they come last
}

// rule is the rule that holds for a client, or nil.
func (s *Service) rule(c Country) *Rule {
	for i := range s.Rules {
		if s.Rules[i].Clients.Has(c) {
			return &s.Rules[i]
		}
	}
	return nil
}

// Forbidden tells whether residency keeps clients of a country out of a region for service svc, both indices of s.
func (s *Snapshot) Forbidden(svc, region int, c Country) bool {
	r := s.Services[svc].rule(c)
	return r != nil && r.Strict && !r.Allowed[region]
}
