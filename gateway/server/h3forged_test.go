package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"landfall/configs"
)

// deaf is a socket that hears nothing: what it sends looks as if its address were forged.
type deaf struct{ net.PacketConn }

func (d deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		if _, _, err := d.PacketConn.ReadFrom(p); err != nil {
			return 0, nil, err
		}
	}
}

// TestH3ForgedAddresses: who forges a client's address can use up neither its rate nor its share of connections, and the
// client itself is let in.
func TestH3ForgedAddresses(t *testing.T) {
	for name, limit := range map[string]func(*configs.Limits){
		"rate":        func(l *configs.Limits) { l.ConnectionRate = 0.001 },
		"connections": func(l *configs.Limits) { l.ConnectionsPerClient = 10 },
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, func(o *Options) { limit(&o.Limits) })
			addr := h.https3(ok)
			to, err := net.ResolveUDPAddr("udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			for range 30 {
				pc, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				tr := &quic.Transport{Conn: deaf{pc}}
				ctx, cancel := context.WithCancel(context.Background())
				dialed := make(chan struct{})
				go func() {
					defer close(dialed)
					_, _ = tr.Dial(ctx, to, &tls.Config{ServerName: "localhost", NextProtos: []string{"h3"}}, nil)
				}()
				t.Cleanup(func() { cancel(); <-dialed; _ = tr.Close(); _ = pc.Close() })
			}
			eventually(t, "forged handshakes", func() bool { return h.s.clients.open() >= 5 })
			if res, _ := do(t, h.h3(), makeRequest(t, "GET", "https://"+addr+"/", nil)); res.StatusCode != 200 {
				t.Errorf("the client itself got %d", res.StatusCode)
			}
			if got := h.s.clients.open(); got > 8 {
				t.Errorf("%d connections are charged to the client, of which one is its own", got)
			}
		})
	}
}

// TestH3QuietIsToldToGo: a connection that had no request for the idle time is told to go before it is closed, so that a
// request on its way is not lost.
func TestH3QuietIsToldToGo(t *testing.T) {
	h := start(t, func(o *Options) { o.Limits.IdleTimeout = configs.Duration(300 * time.Millisecond) })
	addr := h.https3(ok)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	qc, err := quic.DialAddr(ctx, addr, &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost", NextProtos: []string{"h3"}},
		&quic.Config{KeepAlivePeriod: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var types []uint64
	for {
		stream, err := qc.AcceptUniStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		r := quicvarint.NewReader(stream)
		if kind, err := quicvarint.Read(r); err != nil || kind != 0 {
			continue // QPACK's
		}
		for { // the frames of the control stream
			kind, err := quicvarint.Read(r)
			if err != nil {
				break
			}
			types = append(types, kind)
			if n, err := quicvarint.Read(r); err == nil {
				_, _ = io.CopyN(io.Discard, r, int64(n))
			}
		}
		break
	}
	var app *quic.ApplicationError
	if err := context.Cause(qc.Context()); !errors.As(err, &app) || app.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeNoError) || !slices.Equal(types, []uint64{4, 7}) {
		t.Errorf("frames %v, then closed by %v; want SETTINGS (4), GOAWAY (7) and no error", types, err)
	}
}
