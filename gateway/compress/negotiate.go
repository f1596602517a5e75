package compress

import "strings"

// The weight of a coding in thousandths, or one of these.
const (
	unlisted = -1
	maxQ     = 1000
)

// Negotiate chooses the coding of a response from the values of the request's Accept-Encoding fields (RFC 9110 section
// 12.5.3): the client's weights first, then the order of Options.Algorithms. It returns "" for identity, which is also
// the answer to an absent or empty field and to a client that refuses everything, identity included: such a client is
// better served by a plain body than by a 406. A malformed member counts as absent. Pure, without allocation, safe for
// concurrent use.
func (c *Compressor) Negotiate(acceptEncoding []string) string {
	var weights [len(codings)]int
	for i := range weights {
		weights[i] = unlisted
	}
	star, identity := unlisted, unlisted
	for _, value := range acceptEncoding {
		for value != "" {
			var member string
			member, value, _ = strings.Cut(value, ",")
			name, q, ok := parseMember(member)
			if !ok {
				continue
			}
			switch i := codingIndex(name); {
			case i >= 0:
				weights[i] = q
			case name == "*":
				star = q
			case strings.EqualFold(name, "identity"):
				identity = q
			}
		}
	}
	best, bestQ := "", max(identity, 1) // a coding must be wanted (q > 0), and as much as a weighed identity is
	for _, i := range c.order {
		q := weights[i]
		if q == unlisted {
			q = star
		}
		if q > bestQ || q == bestQ && best == "" {
			best, bestQ = codings[i].name, q
		}
	}
	return best
}

// codingIndex is the index of name in codings, or -1. x-gzip is gzip's other name (RFC 9110 section 8.4.1.3).
func codingIndex(name string) int {
	for i := range codings {
		if strings.EqualFold(name, codings[i].name) {
			return i
		}
	}
	if strings.EqualFold(name, "x-gzip") {
		return codingGzip
	}
	return -1
}

// parseMember parses one member of Accept-Encoding: a coding with an optional weight.
func parseMember(member string) (name string, q int, ok bool) {
	name, params, weighed := strings.Cut(member, ";")
	name = strings.Trim(name, " \t")
	if name == "" {
		return "", 0, false
	}
	if !weighed {
		return name, maxQ, true
	}
	key, value, found := strings.Cut(params, "=")
	if !found || !strings.EqualFold(strings.Trim(key, " \t"), "q") {
		return "", 0, false
	}
	q, ok = parseWeight(strings.Trim(value, " \t"))
	return name, q, ok
}

// parseWeight parses a qvalue (RFC 9110 section 12.4.2) to thousandths: 0 to 1 with at most three decimals.
func parseWeight(s string) (int, bool) {
	whole, decimals, _ := strings.Cut(s, ".")
	if whole != "0" && whole != "1" || len(decimals) > 3 {
		return 0, false
	}
	q, unit := int(whole[0]-'0')*maxQ, maxQ/10
	for i := range len(decimals) {
		d := decimals[i]
		if d < '0' || d > '9' {
			return 0, false
		}
		q += int(d-'0') * unit
		unit /= 10
	}
	return q, q <= maxQ
}
