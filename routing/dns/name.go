package dns

import (
	"errors"
	"fmt"
	"strings"

	mdns "github.com/miekg/dns"
)

const (
	maxName   = 255 // bytes of a name on the wire (RFC 1035 §2.3.4)
	maxLabels = 127
)

// name is a name in wire form, lower case and not compressed, with the offset of each label but the root.
type name struct {
	wire    [maxName]byte
	length  int
	starts  [maxLabels]uint8
	nLabels int
}

// bytes is the whole name with its final zero.
func (n *name) bytes() []byte { return n.wire[:n.length] }

// suffix is the name from label i on, 0 <= i < nLabels.
func (n *name) suffix(i int) []byte { return n.wire[n.starts[i]:n.length] }

var (
	errNameCut  = errors.New("name cut short")
	errNameLong = errors.New("name longer than 255 bytes")
	errLabel    = errors.New("label of an unknown type, or compressed")
)

// parse reads a name that may not be compressed, as in a question, from the head of b. It returns the bytes used.
func (n *name) parse(b []byte) (int, error) {
	n.length, n.nLabels = 0, 0
	for off := 0; ; {
		if off >= len(b) {
			return 0, errNameCut
		}
		size := int(b[off])
		if size > 63 {
			return 0, errLabel
		}
		end := off + 1 + size
		if end > len(b) {
			return 0, errNameCut
		}
		if end > maxName {
			return 0, errNameLong
		}
		n.wire[off] = b[off]
		for i := off + 1; i < end; i++ {
			n.wire[i] = lower(b[i])
		}
		if size == 0 {
			n.length = end
			return end, nil
		}
		n.starts[n.nLabels] = uint8(off)
		n.nLabels++
		off = end
	}
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// host appends the name as a hostname (lower case, no final dot) to dst. ok is false when it is the root or has a label
// that no hostname has: a dot inside a label must not pass for two labels.
func (n *name) host(dst []byte) (_ []byte, ok bool) {
	if n.nLabels == 0 {
		return dst, false
	}
	for i := range n.nLabels {
		if i > 0 {
			dst = append(dst, '.')
		}
		start := int(n.starts[i])
		label := n.wire[start+1 : start+1+int(n.wire[start])]
		for _, c := range label {
			if c != '-' && c != '_' && c != '*' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return dst, false
			}
		}
		dst = append(dst, label...)
	}
	return dst, true
}

// parseName turns a name of the config, with or without a final dot, into wire form.
func parseName(s string) (name, error) {
	var n name
	buf := make([]byte, maxName+1)
	end, err := mdns.PackDomainName(mdns.Fqdn(s), buf, 0, nil, false)
	if err != nil {
		return n, fmt.Errorf("%q is no domain name: labels have 1 to 63 bytes and a name at most 255", s)
	}
	if _, err := n.parse(buf[:end]); err != nil {
		return n, fmt.Errorf("%q is no domain name: %w", s, err)
	}
	return n, nil
}

// mailbox turns a mail address into the name that an SOA record has for it (RFC 1035 §8). An address without @ is a
// mailbox of the zone; one with a final dot is such a name already.
func mailbox(contact, zone string) (name, error) {
	if contact == "" {
		contact = "hostmaster"
	}
	if strings.HasSuffix(contact, ".") {
		return parseName(contact)
	}
	local, domain, found := strings.Cut(contact, "@")
	if !found {
		domain = zone
	}
	if local == "" || domain == "" {
		return name{}, fmt.Errorf("%q is no mail address", contact)
	}
	return parseName(strings.ReplaceAll(local, ".", `\.`) + "." + domain)
}
