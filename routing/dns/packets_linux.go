package dns

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packets is a worker's room for a batch: queries as they came, and the answers to them, fewer perhaps. It takes and gives
// them by recvmmsg and sendmmsg, as ipv4.PacketConn's ReadBatch and WriteBatch do, but keeps a client's address in the
// kernel's form from the query to the answer: those make two objects of it for each packet.
type packets struct {
	conn    syscall.RawConn
	in, out [batchSize]mmsghdr
	vectors [2][batchSize]unix.Iovec
	names   [batchSize]unix.RawSockaddrInet6 // of either family
	queries [batchSize][maxUDP + 1]byte
	answers [batchSize][]byte
	control []byte // of all queries, controlSize each
	size    int
	sources sources

	receive, send func(fd uintptr) (done bool) // made once: a method value is an object
	patience      int                          // how often an empty socket is tried again
	next, end     int                          // of out, what is to be sent
	count         int
	failed        error
}

// mostPatience is how often an empty socket is tried again before the worker is put to sleep, some 30 microseconds in all. To
// sleep and to be woken takes as long as several answers do, which at a high rate is wasted: the next query is about to
// come. Where it didn't pay, half as many tries are made the next time, down to none.
const mostPatience = 60

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

func newPackets(conn *net.UDPConn, controlSize int) (*packets, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &packets{conn: raw, control: make([]byte, batchSize*controlSize), size: controlSize}
	for i := range batchSize {
		in, out := &p.in[i].header, &p.out[i].header
		p.answers[i] = make([]byte, 0, maxUDP)
		p.vectors[0][i].Base = &p.queries[i][0]
		p.vectors[0][i].SetLen(len(p.queries[i]))
		in.Iov, out.Iov = &p.vectors[0][i], &p.vectors[1][i]
		in.SetIovlen(1)
		out.SetIovlen(1)
		in.Name = (*byte)(unsafe.Pointer(&p.names[i]))
		if controlSize > 0 {
			in.Control = &p.control[i*controlSize]
		}
	}
	p.receive, p.send = p.recvmmsg, p.sendmmsg
	return p, nil
}

// read takes what has arrived, at least one packet, and returns how many.
func (p *packets) read() (n int, err error) {
	for i := range p.in {
		p.in[i].header.Namelen = unix.SizeofSockaddrInet6
		p.in[i].header.SetControllen(p.size)
	}
	if err := p.conn.Read(p.receive); err != nil {
		return 0, err
	}
	return p.count, p.failed
}

func (p *packets) recvmmsg(fd uintptr) (done bool) {
	for tries := 0; ; tries++ {
		if p.call(unix.SYS_RECVMMSG, fd, p.in[:]) {
			if tries > 0 || p.count > 1 {
				p.patience = mostPatience
			}
			return true
		}
		if tries >= p.patience {
			p.patience /= 2
			return false
		}
		runtime.Gosched() // whoever else has work goes first
	}
}

func (p *packets) sendmmsg(fd uintptr) (done bool) {
	return p.call(unix.SYS_SENDMMSG, fd, p.out[p.next:p.end])
}

func (p *packets) call(number, fd uintptr, ms []mmsghdr) (done bool) {
	for {
		n, _, err := unix.Syscall6(number, fd, uintptr(unsafe.Pointer(&ms[0])), uintptr(len(ms)), unix.MSG_DONTWAIT, 0, 0)
		switch err {
		case 0:
			p.count, p.failed = int(n), nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		default:
			p.count, p.failed = 0, err
		}
		return true
	}
}

// query is the i-th packet that was read; not ok when it was cut off.
func (p *packets) query(i int) (msg []byte, from netip.AddrPort, ok bool) {
	m, name := &p.in[i], &p.names[i]
	if m.length > maxUDP {
		return nil, from, false
	}
	// The port stands at the same place in both families, in network order.
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		from = netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr), port)
	} else {
		from = netip.AddrPortFrom(netip.AddrFrom16(name.Addr), port)
	}
	return p.queries[i][:m.length], from, true
}

// room is for the n-th answer.
func (p *packets) room(n int) []byte { return p.answers[n][:0] }

// answer makes msg, which began in room(n) and may have outgrown it, the n-th answer, to query i.
func (p *packets) answer(n, i int, msg []byte) {
	p.answers[n] = msg
	out, in := &p.out[n].header, &p.in[i].header
	out.Iov.Base = &msg[0]
	out.Iov.SetLen(len(msg))
	out.Name, out.Namelen = in.Name, in.Namelen
	control := p.sources.of(p.control[i*p.size:][:in.Controllen])
	out.Control = unsafe.SliceData(control)
	out.SetControllen(len(control))
}

// write sends up to the n-th answer, and calls refused for each that can't be.
func (p *packets) write(n int, refused func()) {
	for p.next, p.end = 0, n; p.next < p.end; {
		err := p.conn.Write(p.send)
		if err == nil {
			err = p.failed
		}
		if err != nil {
			refused()
			p.count = 1
		}
		p.next += max(p.count, 1)
	}
}
