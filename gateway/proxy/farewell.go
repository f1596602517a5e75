package proxy

import (
	"encoding/binary"
	"io"
	"strings"
	"sync"
	"sync/atomic"
)

// farewell writes one direction of a WebSocket, towards the client, and can put a Close frame into it: a node that stops
// says so to those that are still there, rather than cut them off in the middle of a frame.
type farewell struct {
	dst io.Writer
	due atomic.Bool

	mu     sync.Mutex
	frames socketFrames
	said   bool
}

// goingAway is a Close frame with status 1001 (RFC 6455 sections 5.5.1 and 7.4.1), as servers send it: not masked.
func goingAway() []byte { return []byte{0x88, 2, 0x03, 0xe9} }

// Write passes p on, up to the Close frame; after that nothing may follow (RFC 6455 section 5.5.1), and it is dropped.
func (f *farewell) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.said {
		return len(p), nil
	}
	piece := p
	if f.due.Load() {
		piece = p[:f.frames.untilBoundary(p)]
	}
	n, err := f.dst.Write(piece)
	f.frames.follow(piece[:n])
	if err != nil {
		return n, err
	}
	if f.sayIfDue(); f.said {
		return len(p), nil
	}
	return n, nil
}

// say tells the client to go: now, or at the end of the frame that is on its way.
func (f *farewell) say() {
	f.due.Store(true)
	for f.due.Load() && f.mu.TryLock() { // else the writer sees to it
		said := f.sayIfDue()
		f.mu.Unlock()
		if !said {
			return
		}
	}
}

// sayIfDue is called with mu held.
func (f *farewell) sayIfDue() bool {
	if !f.due.Load() || f.said || !f.frames.boundary() {
		return false
	}
	f.said = true
	f.due.Store(false)
	_, _ = f.dst.Write(goingAway()) // a client that is gone shows at its own end
	return true
}

// isWebSocket tells whether an upgrade is to WebSocket.
func isWebSocket(upgrade string) bool {
	return strings.EqualFold(strings.TrimSpace(upgrade), "websocket")
}

// socketFrames follows WebSocket frames (RFC 6455 section 5.2) in the bytes of one direction, to know where another may be
// put in between.
type socketFrames struct {
	header [14]byte
	have   int    // bytes of the header seen
	left   uint64 // bytes of the payload to come
}

func (f *socketFrames) boundary() bool { return f.have == 0 }

func (f *socketFrames) follow(p []byte) {
	for len(p) > 0 {
		p = p[f.next(p):]
	}
}

// untilBoundary is the length of the part of p up to the first boundary, 0 when there is one now, or all of it.
func (f *socketFrames) untilBoundary(p []byte) int {
	look := *f
	n := 0
	for n < len(p) && !look.boundary() {
		n += look.next(p[n:])
	}
	return n
}

// next follows p to the end of a frame's header or payload, and tells how many bytes that was.
func (f *socketFrames) next(p []byte) int {
	if f.left > 0 {
		n := int(min(uint64(len(p)), f.left))
		if f.left -= uint64(n); f.left == 0 {
			f.have = 0
		}
		return n
	}
	for n := range p {
		f.header[f.have] = p[n]
		f.have++
		if f.have >= 2 && f.have == f.size() {
			if f.left = f.length(); f.left == 0 {
				f.have = 0
			}
			return n + 1
		}
	}
	return len(p)
}

// size is the length of the header, of which at least two bytes were seen.
func (f *socketFrames) size() int {
	n := 2
	switch f.header[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.header[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// length is the payload's, of a whole header.
func (f *socketFrames) length() uint64 {
	switch n := f.header[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.header[2:])
	default:
		return uint64(n)
	}
}
