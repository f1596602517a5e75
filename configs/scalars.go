package configs

import (
	"net/netip"
	"time"
)

// Duration is a length of time. In YAML: 250ms, 20s, 1m30s, 2h, 7d.
type Duration time.Duration

// D is the duration as the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Size is a number of bytes. In YAML: 512, 32KiB, 64MiB, 1GiB (powers of 1024), 10KB, 5MB (powers of 1000).
type Size int64

// Percent is a share: 0.5 is written 50%. Range 0 to 1.
type Percent float64

// Rate is a number of events per second. In YAML: 50/s, 100/m, 1000/h. Zero: no limit.
type Rate float64

// StatusRange is an inclusive range of HTTP status codes. In YAML: 200 or 200-299.
type StatusRange struct{ From, To int }

// Contains tells whether code lies in the range.
func (r StatusRange) Contains(code int) bool { return r.From <= code && code <= r.To }

// StringList is a list of strings. In YAML a single string is a list of one.
type StringList []string

// Prefix is an address prefix. In YAML: 10.0.0.0/8 or a single address.
type Prefix struct{ netip.Prefix }
