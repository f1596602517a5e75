package mesh

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossipWire carries gossip between nodes of one process and counts its bytes.
type gossipWire struct {
	ports map[string]*gossipEnd
	bytes atomic.Int64 // sent; as many are received
}

type gossipEnd struct {
	wire    *gossipWire
	at      *net.UDPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  atomic.Bool
}

func (w *gossipWire) end(i int) *gossipEnd {
	e := &gossipEnd{
		wire: w, at: &net.UDPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i)), Port: 7946},
		packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn, 512),
	}
	w.ports[e.at.String()] = e
	return e
}

func (e *gossipEnd) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return e.at.IP, e.at.Port, nil
}
func (e *gossipEnd) PacketCh() <-chan *memberlist.Packet { return e.packets }
func (e *gossipEnd) StreamCh() <-chan net.Conn           { return e.streams }

func (e *gossipEnd) Shutdown() error {
	e.closed.Store(true)
	return nil
}

func (e *gossipEnd) WriteTo(b []byte, addr string) (time.Time, error) {
	e.wire.bytes.Add(int64(len(b)))
	e.wire.ports[addr].packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: e.at, Timestamp: time.Now()}
	return time.Now(), nil
}

func (e *gossipEnd) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	if e.wire.ports[addr].closed.Load() {
		return nil, net.ErrClosed
	}
	here, there := net.Pipe()
	e.wire.ports[addr].streams <- gossipConn{there, e.wire}
	return gossipConn{here, e.wire}, nil
}

type gossipConn struct {
	net.Conn
	wire *gossipWire
}

func (c gossipConn) Write(b []byte) (int, error) {
	c.wire.bytes.Add(int64(len(b)))
	return c.Conn.Write(b)
}

// gossiper is memberlist as a node of the mesh sets it up, without the rest of the node.
func gossiper(t *testing.T, i int, w *gossipWire) *memberlist.Memberlist {
	name, region := fmt.Sprintf("n%02d-%d", i/10, i%10), fmt.Sprintf("r%02d", i/10)
	e := w.end(i)
	self := costInfo(name, region, netip.MustParseAddrPort(e.at.String()))
	m := &Mesh{opt: Options{Node: name, Fleet: "test", Keys: [][]byte{make([]byte, 32)}}}
	m.core = newCore(name, self, defaultHeartbeat, time.Second, instant{time.Now(), time.Now()}, func() float64 { return 0.5 })
	c, err := m.listConfig(log.New(discard{}, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	c.Transport, c.BindAddr, c.AdvertiseAddr, c.AdvertisePort = e, e.at.IP.String(), e.at.IP.String(), e.at.Port
	c.Events, c.Conflict, c.Alive = nil, nil, nil
	list, err := memberlist.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// gossipRate is what a node of a fleet sends and receives by gossip in idle times, in bytes a second: the packets and streams
// of memberlist, encrypted and labelled, the headers of UDP, TCP and IP left out.
func gossipRate(t *testing.T, nodes int, span time.Duration) (rate float64) {
	synctest.Test(t, func(t *testing.T) {
		w := &gossipWire{ports: map[string]*gossipEnd{}}
		var lists []*memberlist.Memberlist
		for i := range nodes {
			lists = append(lists, gossiper(t, i, w))
			if _, err := lists[i].Join([]string{lists[0].LocalNode().Address()}); err != nil {
				t.Fatal(err)
			}
		}
		pass := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			<-ctx.Done()
		}
		pass(2 * time.Minute)
		for _, l := range lists {
			if l.NumMembers() != nodes {
				t.Fatalf("%s knows %d of %d nodes", l.LocalNode().Name, l.NumMembers(), nodes)
			}
		}
		was := w.bytes.Load()
		pass(span)
		rate = 2 * float64(w.bytes.Load()-was) / float64(nodes) / span.Seconds()
		for _, l := range lists {
			if err := l.Shutdown(); err != nil {
				t.Error(err)
			}
		}
		pass(10 * time.Minute) // the tickers of a list that was shut down end late
	})
	return rate
}

// What gossip alone costs a node of 300.
func TestGossipCost(t *testing.T) {
	nodes, span := 12, 2*time.Minute
	if *costSpan > 0 {
		nodes, span = 300, 10*time.Minute
	}
	t.Logf("gossip of a node of %d over %s: %.2f KB/s sent and received", nodes, span, gossipRate(t, nodes, span)/1000)
}
