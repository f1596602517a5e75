package mesh

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// simHeap is what is to come, by time and then in the order in which it was asked for. The events themselves lie still.
type simHeap []simDue

type simDue struct {
	at   time.Duration
	seq  uint64
	slot int32
}

func (h simHeap) less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}

func (s *sim) push(e simEvent) {
	s.seq++
	slot := int32(len(s.slab))
	if k := len(s.free); k > 0 {
		slot, s.free = s.free[k-1], s.free[:k-1]
		s.slab[slot] = e
	} else {
		s.slab = append(s.slab, e)
	}
	s.queue = append(s.queue, simDue{e.at, s.seq, slot})
	h := s.queue
	for i := len(h) - 1; i > 0; {
		p := (i - 1) / 2
		if !h.less(i, p) {
			break
		}
		h[i], h[p] = h[p], h[i]
		i = p
	}
}

func (s *sim) pop() simEvent {
	h := s.queue
	slot := h[0].slot
	top := s.slab[slot]
	s.slab[slot] = simEvent{}
	s.free = append(s.free, slot)
	n := len(h) - 1
	h[0] = h[n]
	h = h[:n]
	s.queue = h
	for i := 0; ; {
		l := 2*i + 1
		if l >= n {
			break
		}
		if r := l + 1; r < n && h.less(r, l) {
			l = r
		}
		if !h.less(l, i) {
			break
		}
		h[i], h[l] = h[l], h[i]
		i = l
	}
	return top
}

// overhead is what HTTP/2 and TLS 1.3 add to a message that is sent alone, as most are: the record's header, type and tag
// (5+1+16) and the frame's header (9). TestWireBytes holds it against real connections.
const overhead = 22 + 9

// size is what a message is on the wire, the headers of TCP and IP left out.
func size(m message, scratch []byte) (int, []byte) {
	switch m := m.(type) {
	case pulse:
		return 1 + overhead, scratch
	case *beat:
		n := 1 + uvarintLen(m.seq) + uvarintLen(m.echo) + uvarintLen(m.hold) + 9
		if m.wall > 0 {
			n += uvarintLen(uint64(m.wall))
		}
		return 1 + n + overhead, scratch
	}
	scratch = appendMessage(scratch[:0], m)
	return uvarintLen(uint64(len(scratch))) + len(scratch) + overhead, scratch
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// carry does what a step asks for.
func (s *sim) carry(idx int, o *effects) {
	n := s.nodes[idx]
	for _, sv := range o.saves {
		d := time.Duration(1+s.rng.IntN(8)) * time.Millisecond
		s.push(simEvent{at: max(s.now+d, n.diskBusy), kind: simSaved, node: idx, life: n.life, saved: sv})
		n.diskBusy = max(s.now+d, n.diskBusy)
	}
	for _, m := range o.sends {
		s.transmit(idx, n, m)
	}
	for _, id := range o.closes {
		if l := n.inbox[id]; l != nil {
			side := l.sideOf(idx, n.life)
			delete(n.inbox, id)
			if !l.down[side] {
				l.down[side] = true
				s.end(l, 1-side, endedByPeer)
			}
		}
	}
	for _, peer := range o.dials {
		s.dial(idx, n, peer)
	}
	for _, e := range o.events {
		s.note(n.name, e.kind, e.subject)
		s.onEvent(n, e)
	}
	for _, r := range slices.Clone(o.results) {
		s.onResult(n, r)
	}
}

// note adds to the hash of the run.
func (s *sim) note(parts ...string) {
	h := fnv.New64a()
	fmt.Fprint(h, s.trace, s.now, strings.Join(parts, "\x00"))
	s.trace = h.Sum64()
}

func (s *sim) dial(idx int, n *simNode, peer string) {
	to, known := s.index[peer]
	fail := func(after time.Duration, how ending) {
		s.push(simEvent{at: s.now + after, kind: simDialed, node: idx, life: n.life, peer: peer, how: how})
	}
	if !known {
		fail(time.Millisecond, dialRefused)
		return
	}
	p := s.nodes[to]
	switch {
	case s.cut(n, p) || s.cut(p, n) || p.frozen > s.now:
		fail(3*time.Second, dialSilent)
	case !p.up:
		fail(s.way(idx, to)+s.way(to, idx), dialRefused)
	default: // TCP and TLS 1.3, then the greeting
		s.next++
		l := &simLink{id: s.next, ends: [2]int{idx, to}, lives: [2]int{n.life, p.life}}
		s.push(simEvent{at: s.now + 5*s.way(idx, to), kind: simUp, node: to, life: p.life, link: l, side: 1})
	}
}

// transmit sends one message over a link. As TCP does it, what is lost comes later and holds up what follows; as
// datagrams do it, it is lost, doubled or overtaken.
func (s *sim) transmit(idx int, n *simNode, m sending) {
	l := n.inbox[m.link]
	if l == nil {
		return
	}
	var scratch [64]byte
	bytes, _ := size(m.msg, scratch[:0])
	n.sent += uint64(bytes)
	n.messages++
	peer := s.nodes[l.ends[1-l.sideOf(idx, n.life)]]
	peer.received += uint64(bytes)
	if s.kinds != nil {
		s.kinds[m.msg.kind().String()]++
	}
	side := l.sideOf(idx, n.life)
	if l.down[side] {
		return
	}
	to := 1 - side
	if s.cut(n, s.nodes[l.ends[to]]) {
		n.lost++
		return
	}
	d := s.way(idx, l.ends[to])
	if s.wired {
		decoded, err := decodeMessage(appendMessage(nil, m.msg))
		if err != nil {
			panic(fmt.Sprintf("%T %v", m.msg, err))
		}
		m.msg = decoded
	}
	e := simEvent{kind: simDeliver, node: l.ends[to], life: l.lives[to], link: l, msg: m.msg, side: uint8(to)}
	if s.datagram {
		if s.loss > 0 && s.rng.Float64() < s.loss {
			n.lost++
			return
		}
		e.at = s.now + d + time.Duration(s.rng.ExpFloat64()*float64(2*time.Millisecond))
		s.push(e)
		if s.loss > 0 && s.rng.Float64() < s.loss/10 {
			e.at += time.Duration(s.rng.Int64N(int64(time.Second)))
			s.push(e)
		}
		return
	}
	if s.loss > 0 {
		// The retransmission timeout doubles, but what follows on the connection tells of a loss sooner (RFC 8985).
		rto, told := 200*time.Millisecond+2*d, s.beat+2*d
		for k := 0; k < 7 && s.rng.Float64() < s.loss; k++ {
			d += min(rto<<k, told)
		}
	}
	e.at = max(s.now+d, l.ready[to])
	l.ready[to] = e.at
	s.push(e)
}
