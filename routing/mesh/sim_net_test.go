package mesh

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

type simHeap []simEvent

func (h simHeap) less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}

func (s *sim) push(e simEvent) {
	s.seq++
	e.seq = s.seq
	s.queue = append(s.queue, e)
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
	top := h[0]
	n := len(h) - 1
	h[0] = h[n]
	h[n] = simEvent{}
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

// overhead is what HTTP/2 and TLS add to a message: the record's header and tag (5+17), the frame's header (9) and the
// message's length.
const overhead = 22 + 9 + 2

func size(m message, scratch []byte) (int, []byte) {
	if b, ok := m.(*beat); ok {
		n := 1 + uvarintLen(b.seq) + uvarintLen(b.echo) + uvarintLen(b.hold) + 9
		if b.wall > 0 {
			n += uvarintLen(uint64(b.wall))
		}
		return n + overhead, scratch
	}
	scratch = appendMessage(scratch[:0], m)
	return len(scratch) + overhead, scratch
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
		s.push(simEvent{at: max(s.now+d, n.diskBusy), kind: simSaved, node: idx, life: n.life, token: sv.token, rs: sv.registers, wipe: sv.wipe, gone: sv.gone})
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
		rto := 200*time.Millisecond + 2*d
		for k := 0; s.rng.Float64() < s.loss; k++ {
			if k == 7 {
				break // the connection would soon be given up
			}
			d += rto << k
		}
	}
	e.at = max(s.now+d, l.ready[to])
	l.ready[to] = e.at
	s.push(e)
}
