package dns

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// TestListenMore holds that the kernel spreads clients over the sockets of an address, that all answer, and that nobody
// else gets the port.
func TestListenMore(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux spreads clients over sockets")
	}
	for _, bind := range []string{"127.0.0.1:0", ":0"} {
		t.Run(bind, func(t *testing.T) {
			s := mustNew(t, testOptions())
			first, tcp, err := s.Listen(bind)
			if err != nil {
				t.Fatal(err)
			}
			more, err := s.ListenMore(first, 3)
			if err != nil || len(more) != 3 {
				t.Fatalf("%d sockets, %v", len(more), err)
			}
			_, port, _ := net.SplitHostPort(first.LocalAddr().String())
			if _, _, err := s.Listen("127.0.0.1:" + port); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("the port could be taken again: %v", err)
			}
			sockets := append([]net.PacketConn{first}, more...)
			clients := make([]net.Conn, 64)
			for i := range clients {
				clients[i] = dial(t, "udp", "127.0.0.1:"+port)
				if _, err := clients[i].Write([]byte{1}); err != nil {
					t.Fatal(err)
				}
			}
			busy := 0
			for _, c := range sockets {
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				if _, _, err := c.ReadFrom(make([]byte, 16)); err == nil {
					busy++
				} else if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				_ = c.SetReadDeadline(time.Time{})
			}
			if busy < 2 {
				t.Errorf("%d of %d sockets were sent anything", busy, len(sockets))
			}
			ctx, cancel := context.WithCancel(t.Context())
			var serving sync.WaitGroup
			for i, c := range sockets {
				ln := tcp
				if i > 0 {
					ln = nil
				}
				serving.Go(func() {
					if err := s.Serve(ctx, c, ln); err != nil {
						t.Error(err)
					}
				})
			}
			defer serving.Wait()
			defer cancel()
			for _, c := range clients {
				if _, err := c.Write(mustPack(t, new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeA))); err != nil {
					t.Fatal(err)
				}
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				if n, err := c.Read(make([]byte, 1500)); err != nil || n < headerSize {
					t.Errorf("%d bytes, %v", n, err)
				}
			}
		})
	}
}

// TestSources holds that remembered control data is that of the query at hand.
func TestSources(t *testing.T) {
	r := start(t, "0.0.0.0:0", func(o *Options) { o.UDPWorkers = 1 })
	_, port, _ := net.SplitHostPort(r.addr)
	for range 3 {
		for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
			c := dial(t, "udp", net.JoinHostPort(host, port)) // connected: an answer from another address is not heard
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := c.Write(mustPack(t, new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeA))); err != nil {
				t.Skipf("no %s here: %v", host, err)
			}
			if _, err := c.Read(make([]byte, 1500)); err != nil {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
}
