package push

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

// A batch of names with many addresses fits in one message, however long the names are.
func TestBatchFitsInAMessage(t *testing.T) {
	for _, long := range []int{1, 60, 200} {
		var due []Name
		for i := range 3 * maxBatch {
			label := strings.Repeat("a", 50) + "."
			n := Name{Host: fmt.Sprintf("n%d.", i) + strings.Repeat(label, long/51) + "web.test"}
			for a := range 32 {
				n.Addrs = append(n.Addrs, netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", a+1)))
			}
			due = append(due, n)
		}
		for rest := due; len(rest) > 0; {
			batch := batchOf(rest)
			if len(batch) == 0 {
				t.Fatal("an empty batch")
			}
			var m mdns.Msg
			m.SetUpdate("web.test.")
			for _, n := range batch {
				for _, a := range n.Addrs {
					name := mdns.Fqdn(n.Host)
					m.RemoveRRset([]mdns.RR{&mdns.AAAA{Hdr: mdns.RR_Header{Name: name, Rrtype: mdns.TypeAAAA, Class: mdns.ClassINET}}})
					m.Insert([]mdns.RR{&mdns.AAAA{Hdr: mdns.RR_Header{Name: name, Rrtype: mdns.TypeAAAA, Class: mdns.ClassINET, Ttl: 20}, AAAA: a.AsSlice()}})
				}
			}
			packed, err := m.Pack()
			if err != nil || len(packed) > 60<<10 {
				t.Fatalf("%d names make a message of %d bytes: %v", len(batch), len(packed), err)
			}
			rest = rest[len(batch):]
		}
	}
}
