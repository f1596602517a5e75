package dns

import (
	"encoding/binary"

	mdns "github.com/miekg/dns"
)

const (
	headerSize = 12
	// maxUDP bounds UDP messages, in bytes, both ways: what crosses the Internet without being fragmented
	// (https://www.dnsflagday.net/2020/).
	maxUDP    = 1232
	minUDP    = 512  // what a client takes that says nothing (RFC 1035 §4.2.1)
	maxTCP    = 4096 // bytes of a query over TCP; real ones have some hundred
	maxMsg    = 65535
	maxExtras = 4 // records in a query's additional section: OPT, TSIG, SIG(0) and one to spare
)

// Header flags, the second 16 bits of a message (RFC 1035 §4.1.1, RFC 4035 §3).
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagCD = 1 << 4
)

// Flags of an OPT record, in its TTL (RFC 3225, RFC 9824 §9).
const (
	flagDO = 1 << 15
	flagCO = 1 << 14
)

// query is one query, taken apart.
type query struct {
	id       uint16
	flags    uint16
	question []byte // as it came, with the client's mixture of cases; nil when there is none that could be read
	name     name
	qtype    uint16
	qclass   uint16

	edns    bool
	size    int // UDP bytes that the client takes
	version uint8
	do      bool
	// compactOK: the client tells a proof that a name has no records from one that it does not exist (RFC 9824 §5).
	compactOK bool
	subnet    subnet
	cookie    []byte // the COOKIE option's data, of a valid size; nil without
	// Its server part is ours; and so young that it need not be made anew.
	cookieValid, cookieFresh bool
	nsid                     bool // the client asks for the server's name (RFC 5001)

	tcp bool
}

// reset makes q a query that nothing is known of. The name's bytes may stay: its length says how many count.
func (q *query) reset(tcp bool) {
	q.name.length, q.name.nLabels = 0, 0
	*q = query{name: q.name, tcp: tcp}
}

func (q *query) opcode() int { return int(q.flags>>11) & 0xF }

// parse takes a message apart. It returns the rcode that the message alone deserves: NOERROR when it is a query that can
// be answered. What could be read before an error is set, so that the refusal can echo it. msg has at least a header.
func (q *query) parse(msg []byte) int {
	q.id = binary.BigEndian.Uint16(msg)
	q.flags = binary.BigEndian.Uint16(msg[2:])
	q.size = minUDP
	counts := [4]uint16{}
	for i := range counts {
		counts[i] = binary.BigEndian.Uint16(msg[4+2*i:])
	}
	ok := q.parseBody(msg, counts)
	switch {
	case q.opcode() != mdns.OpcodeQuery:
		return mdns.RcodeNotImplemented // other operations have other sections; no wonder if they did not parse
	case !ok:
		return mdns.RcodeFormatError
	case q.version > 0:
		return mdns.RcodeBadVers
	}
	return mdns.RcodeSuccess
}

func (q *query) parseBody(msg []byte, counts [4]uint16) bool {
	off := headerSize
	switch counts[0] {
	case 0: // only to get a cookie (RFC 7873 §5.4), or nothing that RFC 9619 §4 allows
	case 1:
		used, err := q.name.parse(msg[headerSize:])
		off += used
		if err != nil || off+4 > len(msg) {
			return false
		}
		q.qtype = binary.BigEndian.Uint16(msg[off:])
		q.qclass = binary.BigEndian.Uint16(msg[off+2:])
		off += 4
		q.question = msg[headerSize:off]
	default:
		return false
	}

	// An IXFR query has a record in its authority section (RFC 1995 §3); no other has one in either.
	authority := int(counts[2])
	if counts[1] != 0 || authority > 1 || authority == 1 && q.qtype != mdns.TypeIXFR || counts[3] > maxExtras {
		return false
	}
	for i := range authority + int(counts[3]) {
		r, next, ok := parseRecord(msg, off)
		if !ok {
			return false
		}
		if r.rtype == mdns.TypeOPT {
			if i < authority || !q.parseOPT(r) {
				return false
			}
		}
		off = next
	}
	return off == len(msg) && (q.question != nil || q.cookie != nil)
}

// record is a record of a query, as far as it matters.
type record struct {
	root  bool // the owner is the root
	rtype uint16
	class uint16
	ttl   uint32
	data  []byte
}

// parseRecord reads the record at off and returns the offset behind it.
func parseRecord(msg []byte, off int) (r record, next int, ok bool) {
	start := off
	if off, ok = skipName(msg, off); !ok || off+10 > len(msg) {
		return r, 0, false
	}
	r.root = msg[start] == 0
	r.rtype = binary.BigEndian.Uint16(msg[off:])
	r.class = binary.BigEndian.Uint16(msg[off+2:])
	r.ttl = binary.BigEndian.Uint32(msg[off+4:])
	size := int(binary.BigEndian.Uint16(msg[off+8:]))
	off += 10
	if off+size > len(msg) {
		return r, 0, false
	}
	r.data = msg[off : off+size]
	return r, off + size, true
}

// skipName returns the offset behind the name at off, which may end in a compression pointer that points back.
func skipName(msg []byte, off int) (int, bool) {
	for start := off; off < len(msg) && off-start < maxName; {
		size := int(msg[off])
		switch {
		case size == 0:
			return off + 1, true
		case size >= 0xC0:
			if off+2 > len(msg) {
				return 0, false
			}
			to := int(binary.BigEndian.Uint16(msg[off:])) & 0x3FFF
			return off + 2, headerSize <= to && to < start
		case size > 63:
			return 0, false
		}
		off += 1 + size
	}
	return 0, false
}

// parseOPT reads the OPT record (RFC 6891 §6.1). There is one at most, owned by the root.
func (q *query) parseOPT(r record) bool {
	if q.edns || !r.root {
		return false
	}
	q.edns = true
	q.size = min(max(int(r.class), minUDP), maxUDP) // §6.2.3: less than 512 means 512
	q.version = uint8(r.ttl >> 16)
	q.do = r.ttl&flagDO != 0
	q.compactOK = q.do && r.ttl&flagCO != 0
	if q.version > 0 {
		return true // its options may look different
	}
	for b := r.data; len(b) > 0; {
		if len(b) < 4 {
			return false
		}
		code, size := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		b = b[4:]
		if size > len(b) {
			return false
		}
		if !q.parseOption(code, b[:size]) {
			return false
		}
		b = b[size:]
	}
	return true
}

// parseOption reads one option. Those that are not known are skipped (RFC 6891 §6.1.2).
func (q *query) parseOption(code uint16, data []byte) bool {
	switch code {
	case mdns.EDNS0SUBNET:
		s, ok := parseSubnet(data)
		if !ok || q.subnet.present() {
			return false
		}
		q.subnet = s
	case mdns.EDNS0COOKIE:
		if !validCookieSize(len(data)) {
			return false // RFC 7873 §5.2.2
		}
		if q.cookie == nil { // only the first counts (§5.2)
			q.cookie = data
		}
	case mdns.EDNS0NSID:
		q.nsid = true
	}
	return true
}

// limit is the size that the answer may have, in bytes.
func (q *query) limit() int {
	if q.tcp {
		return maxMsg
	}
	return q.size
}
