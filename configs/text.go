package configs

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Each scalar is read by UnmarshalText and written by String and MarshalText, which are inverse to each other: what one
// wrote, the other reads back to the same value. An error of UnmarshalText ends with what to write instead.

// The forms of the scalars, as error texts and the reference say them.
const (
	durationForms = "a duration such as 250ms, 20s, 1m30s, 2h or 7d"
	sizeForms     = "a size such as 512, 32KiB, 64MiB, 1GiB or 10MB"
	percentForms  = "a share such as 50% or 2.5%"
	rateForms     = "a rate such as 50/s, 100/m or 1000/h"
	statusForms   = "a status code such as 200 or a range such as 200-299"
	prefixForms   = "an address such as 10.0.0.1 or a prefix such as 10.0.0.0/8"
)

const day = 24 * time.Hour

// UnmarshalText reads 250ms, 20s, 1m30s, 2h, 7d, 1d12h, 1.5s. Units are ns, us, ms, s, m, h and d (24 hours), the larger
// first; 0 needs no unit. A negative or an overflowing duration is an error.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "0" {
		*d = 0
		return nil
	}
	if decimalPattern.MatchString(s) {
		return fmt.Errorf("%q has no unit: write %ss for seconds, or %s", s, s, durationForms)
	}
	if strings.ContainsAny(s, "+-") {
		return fmt.Errorf("%q has a sign: write %s", s, durationForms)
	}
	days, rest, ok := strings.Cut(s, "d")
	var total time.Duration
	if ok {
		n, err := strconv.ParseUint(days, 10, 31)
		if err != nil || n > uint64(math.MaxInt64/int64(day)) {
			return fmt.Errorf("%q is not a duration: write %s", s, durationForms)
		}
		total = time.Duration(n) * day
	} else {
		rest = s
	}
	if rest != "" || !ok {
		more, err := time.ParseDuration(rest)
		if err != nil || more > math.MaxInt64-total {
			return fmt.Errorf("%q is not a duration: write %s", s, durationForms)
		}
		total += more
	}
	*d = Duration(total)
	return nil
}

// String is the duration as people write it: 1m30s, 2h, 7d, 0s.
func (d Duration) String() string {
	t := time.Duration(d)
	if t < day {
		return clock(t)
	}
	s := strconv.FormatInt(int64(t/day), 10) + "d"
	if t %= day; t > 0 {
		s += clock(t)
	}
	return s
}

// clock is time.Duration's own form without the zeros at its end: 2h, not 2h0m0s.
func clock(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

var sizePattern = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)$`)

// sizeUnits are tried in this order when a size is written. Their letter case does not matter when one is read; Ki, K and
// the like stand for KiB, KB and so on.
var sizeUnits = [...]struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3},
}

// UnmarshalText reads 512, 32KiB, 64MiB, 1GiB, 1TiB (powers of 1024) and 10KB, 5MB, 1GB, 1TB (powers of 1000), in any
// letter case and also without the B: 32Ki, 10k. 1.5GiB is read when it comes to whole bytes.
func (z *Size) UnmarshalText(text []byte) error {
	s := string(text)
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return fmt.Errorf("%q is not a size: write %s", s, sizeForms)
	}
	unit := int64(1)
	if m[2] != "" && !strings.EqualFold(m[2], "b") {
		unit = 0
		for _, u := range sizeUnits {
			if strings.EqualFold(m[2], u.name) || strings.EqualFold(m[2]+"b", u.name) {
				unit = u.bytes
			}
		}
		if unit == 0 {
			return fmt.Errorf("%q has an unknown unit: write %s", s, sizeForms)
		}
	}
	number, ok := new(big.Rat).SetString(m[1])
	if !ok {
		return fmt.Errorf("%q is not a size: write %s", s, sizeForms)
	}
	number.Mul(number, new(big.Rat).SetInt64(unit))
	if !number.IsInt() || !number.Num().IsInt64() {
		return fmt.Errorf("%q is not a whole number of bytes that fits in 63 bits", s)
	}
	*z = Size(number.Num().Int64())
	return nil
}

// String is the size in the largest unit that divides it: 64MiB, 5MB, 512.
func (z Size) String() string {
	for _, u := range sizeUnits {
		if z > 0 && int64(z)%u.bytes == 0 {
			return strconv.FormatInt(int64(z)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(z), 10)
}

// MarshalText is String.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

var decimalPattern = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,30})?$`)

// UnmarshalText reads 50% or 2.5%, from 0% to 100%. The sign is needed, as a bare 1 might mean 1% or all; only 0 does
// without.
func (p *Percent) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "0" {
		*p = 0
		return nil
	}
	number, ok := strings.CutSuffix(s, "%")
	if !decimalPattern.MatchString(number) {
		return fmt.Errorf("%q is not a share: write %s", s, percentForms)
	}
	if !ok {
		return fmt.Errorf("%q has no %%, so it might mean a part of 1 or of 100: write %s", s, percentForms)
	}
	// The power of ten is part of the text that is read, so that 0.1% is the float nearest to 0.001.
	v, err := strconv.ParseFloat(number+"e-2", 64)
	if err != nil || v > 1 {
		return fmt.Errorf("%q is more than 100%%", s)
	}
	*p = Percent(v)
	return nil
}

// String is the share with its sign: 2.5%.
func (p Percent) String() string {
	digits, exponent, _ := strings.Cut(strconv.FormatFloat(float64(p), 'e', -1, 64), "e")
	e, err := strconv.Atoi(exponent)
	if err != nil { // not a number or infinite, which no text gives
		return digits + "%"
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	shifted, ok := new(big.Rat).SetString(whole + fraction + "e" + strconv.Itoa(e+2-len(fraction)))
	if !ok {
		return digits + "%"
	}
	places := max(len(fraction)-e-2, 0)
	return shifted.FloatString(places) + "%"
}

// MarshalText is String.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

var rateUnits = [...]struct {
	name    string
	seconds float64
}{{"s", 1}, {"m", 60}, {"h", 3600}}

// UnmarshalText reads 50/s, 100/m, 1000/h or 0.5/s; 0 is no limit. The least other is 1e-6 a second, the most
// 1e9.
func (r *Rate) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "0" {
		*r = 0
		return nil
	}
	number, unit, ok := strings.Cut(s, "/")
	if !decimalPattern.MatchString(number) {
		return fmt.Errorf("%q is not a rate: write %s", s, rateForms)
	}
	if !ok {
		return fmt.Errorf("%q does not say per what: write %s/s for each second, or %s", s, s, rateForms)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return fmt.Errorf("%q is not a rate: write %s", s, rateForms)
	}
	for _, u := range rateUnits {
		if unit != u.name {
			continue
		}
		if n/u.seconds > 1e9 || n != 0 && n/u.seconds < 1e-6 {
			return fmt.Errorf("%q is not from 0.000001/s to 1000000000/s", s)
		}
		*r = Rate(n / u.seconds)
		return nil
	}
	return fmt.Errorf("%q is per an unknown unit: write %s", s, rateForms)
}

// String is the rate in the smallest unit of time in which it is a whole number: 50/s, 100/m.
func (r Rate) String() string {
	if r == 0 {
		return "0"
	}
	for _, u := range rateUnits {
		n := math.Round(float64(r) * u.seconds)
		if n > 0 && n < 1e15 && Rate(n/u.seconds) == r {
			return strconv.FormatFloat(n, 'f', -1, 64) + "/" + u.name
		}
	}
	return strconv.FormatFloat(float64(r), 'f', -1, 64) + "/s"
}

// MarshalText is String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads 200 or 200-299; codes are 100 to 599 (RFC 9110 section 15).
func (r *StatusRange) UnmarshalText(text []byte) error {
	s := string(text)
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		last = first
	}
	from, err1 := statusCode(first)
	to, err2 := statusCode(last)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("%q is not a range of codes from 100 to 599: write %s", s, statusForms)
	}
	if from > to {
		return fmt.Errorf("%q is an empty range: write %d-%d", s, to, from)
	}
	*r = StatusRange{From: from, To: to}
	return nil
}

func statusCode(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || len(s) != 3 || n < 100 || n > 599 {
		return 0, errors.New("not a status code")
	}
	return n, nil
}

// String is the range as it is written: 200 or 200-299.
func (r StatusRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// MarshalText is String.
func (r StatusRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads 10.0.0.0/8, 2001:db8::/32 or a single address. A prefix with bits set beyond its length is an error,
// as is an address with a zone or an IPv4 prefix in IPv6's clothes, which would match nobody.
func (p *Prefix) UnmarshalText(text []byte) error {
	s := string(text)
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.Zone() != "" {
			return fmt.Errorf("%q has a zone: leave out %%%s", s, addr.Zone())
		}
		addr = addr.Unmap()
		*p = Prefix{netip.PrefixFrom(addr, addr.BitLen())}
		return nil
	}
	parsed, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%q is not an address: write %s", s, prefixForms)
	}
	if parsed.Addr().Is4In6() {
		return fmt.Errorf("%q is IPv4 in the form of IPv6: write it as IPv4, like 10.0.0.0/8", s)
	}
	if parsed != parsed.Masked() {
		return fmt.Errorf("%q has bits set beyond its length: write %s", s, parsed.Masked())
	}
	*p = Prefix{parsed}
	return nil
}

// String is the prefix, or the address alone when the prefix is of one address.
func (p Prefix) String() string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.Prefix.String()
}

// MarshalText is String.
func (p Prefix) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String is the location as it is written: [53.35, -6.26].
func (l Location) String() string {
	return "[" + strconv.FormatFloat(l.Lat, 'f', -1, 64) + ", " + strconv.FormatFloat(l.Lon, 'f', -1, 64) + "]"
}

// MarshalJSON is a list of two numbers, latitude first.
func (l Location) MarshalJSON() ([]byte, error) { return []byte(l.String()), nil }
