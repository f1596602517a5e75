package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unicode/utf8"
)

// NodeState is what a node says of itself, or Dead, which others say of it.
type NodeState string

// The states. A node that leaves says so; a node that just falls silent is dead: the two are never confused.
const (
	Joining  NodeState = "joining"  // started, not yet taking traffic
	Serving  NodeState = "serving"  // takes traffic
	Draining NodeState = "draining" // an operator moves traffic away
	Leaving  NodeState = "leaving"  // it stops
	Dead     NodeState = "dead"     // silent, as seen from here
)

// told is the order of the states on the wire; Dead is never told.
func told() []NodeState { return []NodeState{Joining, Serving, Draining, Leaving} }

// Bounds of what a node says of itself. Together they keep its gossip under memberlist's 512 bytes.
const (
	MaxAddrs   = 8
	maxText    = 63
	maxMeta    = 512
	metaFormat = 1
)

// info is what a node says of itself by gossip and in each beat. started and seq order what one name says: the later
// process, then the later change.
type info struct {
	Started int64 // Unix milliseconds
	Seq     uint32
	State   NodeState
	Region  string
	Boot    string
	Version string
	Hash    string // of the config
	Peer    netip.AddrPort
	Admin   netip.AddrPort
	Addrs   []netip.Addr
}

// validName tells whether s can name a node or a region: 1 to 63 letters, digits, -, _ or ., first and last a letter or
// digit. It stands in host names, metrics and file names.
func validName(s string) bool {
	if len(s) == 0 || len(s) > maxText {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		inner := i > 0 && i < len(s)-1 && (c == '-' || c == '_' || c == '.')
		if !alnum && !inner {
			return false
		}
	}
	return true
}

// validText tells whether s is at most limit bytes of UTF-8 without control characters.
func validText(s string, limit int) bool {
	if len(s) > limit || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}

// check tells what is wrong with an info.
func (i info) check() error {
	switch {
	case !validName(i.Region):
		return fmt.Errorf("region %.70q must be 1 to %d letters, digits or . _ -", i.Region, maxText)
	case i.Boot == "" || !validText(i.Boot, maxText):
		return fmt.Errorf("boot id %.70q must be 1 to %d printable bytes", i.Boot, maxText)
	case !validText(i.Version, maxText):
		return fmt.Errorf("version %.70q must be at most %d printable bytes", i.Version, maxText)
	case !validText(i.Hash, maxText):
		return fmt.Errorf("config hash %.70q must be at most %d printable bytes", i.Hash, maxText)
	case !slices.Contains(told(), i.State):
		return fmt.Errorf("state %.70q must be one of %v", i.State, told())
	case len(i.Addrs) > MaxAddrs:
		return fmt.Errorf("%d client-facing addresses are too many; %d are told to the fleet", len(i.Addrs), MaxAddrs)
	}
	for _, a := range i.Addrs {
		if !a.IsValid() {
			return errors.New("a client-facing address is empty")
		}
	}
	return nil
}

// appendMeta encodes an info that passes check, in at most maxMeta bytes: format, state, started (8 bytes), seq (4), the
// texts and addresses each after a byte with their length. Decoders skip what later formats append.
func appendMeta(b []byte, i info) []byte {
	b = append(b, metaFormat, byte(slices.Index(told(), i.State)))
	b = binary.BigEndian.AppendUint64(b, uint64(i.Started))
	b = binary.BigEndian.AppendUint32(b, i.Seq)
	for _, s := range []string{i.Region, i.Boot, i.Version, i.Hash} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	for _, p := range []netip.AddrPort{i.Peer, i.Admin} {
		b = appendAddr(b, p.Addr())
		b = binary.BigEndian.AppendUint16(b, p.Port())
	}
	b = append(b, byte(len(i.Addrs)))
	for _, a := range i.Addrs {
		b = appendAddr(b, a)
	}
	return b
}

func appendAddr(b []byte, a netip.Addr) []byte {
	raw := plain(a).AsSlice()
	return append(append(b, byte(len(raw))), raw...)
}

// plain is an address without zone and without the IPv4-in-IPv6 form: what another machine can use.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// errMeta is what is wrong with most metas: made by something else.
var errMeta = errors.New("the node's description is cut short or of an unknown format")

// decodeMeta decodes and checks what appendMeta made. It accepts nothing that a node could not say.
func decodeMeta(b []byte) (info, error) {
	var i info
	if len(b) > maxMeta || len(b) < 14 || b[0] != metaFormat || int(b[1]) >= len(told()) {
		return i, errMeta
	}
	i.State = told()[b[1]]
	i.Started = int64(binary.BigEndian.Uint64(b[2:]))
	i.Seq = binary.BigEndian.Uint32(b[10:])
	r := reader{rest: b[14:]}
	for _, s := range []*string{&i.Region, &i.Boot, &i.Version, &i.Hash} {
		*s = string(r.bytes())
	}
	for _, p := range []*netip.AddrPort{&i.Peer, &i.Admin} {
		a := r.addr()
		*p = netip.AddrPortFrom(a, r.port())
	}
	n := int(r.byte())
	if n > MaxAddrs {
		return i, errMeta
	}
	for range n {
		i.Addrs = append(i.Addrs, r.addr())
	}
	if r.failed {
		return i, errMeta
	}
	return i, i.check()
}

// reader takes a meta apart; once it ran out, it stays failed and returns zeros.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed = true
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) bytes() []byte { return r.take(int(r.byte())) }

func (r *reader) port() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) addr() netip.Addr {
	b := r.bytes()
	if len(b) == 0 {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok || a != plain(a) { // one way to write each address
		r.failed = true
	}
	return a
}
