//go:build !linux

package dns

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
)

// packets is a worker's room for a batch: queries as they came, and the answers to them, fewer perhaps.
type packets struct {
	conn    *ipv4.PacketConn // reads and writes batches of either family
	in, out []ipv4.Message
	sources sources
}

func newPackets(conn *net.UDPConn, controlSize int) (*packets, error) {
	p := &packets{conn: ipv4.NewPacketConn(conn), in: make([]ipv4.Message, batchSize), out: make([]ipv4.Message, batchSize)}
	for i := range batchSize {
		p.in[i].Buffers = [][]byte{make([]byte, maxUDP+1)}
		p.out[i].Buffers = [][]byte{make([]byte, 0, maxUDP)}
		if controlSize > 0 {
			p.in[i].OOB = make([]byte, controlSize)
		}
	}
	return p, nil
}

// read takes what has arrived, at least one packet, and returns how many.
func (p *packets) read() (n int, err error) { return p.conn.ReadBatch(p.in, 0) }

// query is the i-th packet that was read; not ok when it was cut off.
func (p *packets) query(i int) (msg []byte, from netip.AddrPort, ok bool) {
	m := &p.in[i]
	addr, ok := m.Addr.(*net.UDPAddr)
	if !ok || m.N > maxUDP {
		return nil, from, false
	}
	return m.Buffers[0][:m.N], addr.AddrPort(), true
}

// room is for the n-th answer.
func (p *packets) room(n int) []byte { return p.out[n].Buffers[0][:0] }

// answer makes msg, which began in room(n) and may have outgrown it, the n-th answer, to query i.
func (p *packets) answer(n, i int, msg []byte) {
	in, out := &p.in[i], &p.out[n]
	out.Buffers[0], out.Addr, out.OOB = msg, in.Addr, p.sources.of(in.OOB[:in.NN])
}

// write sends up to the n-th answer, and calls refused for each that can't be.
func (p *packets) write(n int, refused func()) {
	for out := p.out[:n]; len(out) > 0; {
		n, err := p.conn.WriteBatch(out, 0)
		if err != nil {
			refused()
			n++
		}
		out = out[min(max(n, 1), len(out)):]
	}
}
