package dns

import (
	"net"
	"testing"
	"time"
)

// TestSendFails: an answer that can't be sent is counted, and the rest of the batch still goes out.
func TestSendFails(t *testing.T) {
	r := start(t, "127.0.0.1:0", nil)
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	heard, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	client, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p, err := newPackets(conn, 0)
	if err != nil {
		t.Fatal(err)
	}
	clients := []*net.UDPConn{client, heard}
	for _, from := range clients {
		if _, err := from.WriteTo([]byte("query"), conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := p.read(); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	for i, from := range clients {
		if msg, addr, ok := p.query(i); string(msg) != "query" || addr != from.LocalAddr().(*net.UDPAddr).AddrPort() || !ok {
			t.Fatalf("%q of %v, %t", msg, addr, ok)
		}
	}
	// The first can't be sent; the second still is.
	p.answer(0, 0, make([]byte, 1<<17))
	p.answer(1, 1, append(p.room(1), 'y'))
	p.write(2, r.metrics.droppedWrite.Inc)
	if v := counter(t, r.reg, "landfall_dns_dropped_total", "write"); v != 1 {
		t.Errorf("counted %v", v)
	}
	var got [2]byte
	_ = heard.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := heard.Read(got[:]); err != nil || string(got[:n]) != "y" {
		t.Errorf("got %q, %v", got[:n], err)
	}
}
