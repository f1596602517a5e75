package dns

import "net/netip"

// ofFamily is the first n addresses of one family, in their order. Almost always that is all of them.
func ofFamily(addrs []netip.Addr, v6 bool, n int) []netip.Addr {
	for i, a := range addrs {
		if i == n {
			return addrs[:n]
		}
		if !isFamily(a, v6) {
			return filter(addrs, v6, n)
		}
	}
	return addrs
}

func filter(addrs []netip.Addr, v6 bool, n int) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if isFamily(a, v6) && len(out) < n {
			out = append(out, a)
		}
	}
	return out
}

// isFamily tells whether a belongs into an A (v6 false) or AAAA record.
func isFamily(a netip.Addr, v6 bool) bool {
	if v6 {
		return a.Is6() && !a.Is4In6()
	}
	return a.Is4() || a.Is4In6()
}

// nth is the address of nameserver i: the i-th of the family, beginning again when there are fewer, so that every
// nameserver has an address as long as there is one.
func nth(addrs []netip.Addr, i int, v6 bool) netip.Addr {
	count := 0
	for _, a := range addrs {
		if isFamily(a, v6) {
			count++
		}
	}
	if count == 0 {
		return netip.Addr{}
	}
	i %= count
	for _, a := range addrs {
		if isFamily(a, v6) {
			if i == 0 {
				return a
			}
			i--
		}
	}
	return netip.Addr{}
}
