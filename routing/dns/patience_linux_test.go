package dns

import (
	"net"
	"testing"
	"time"
)

// A worker tries an empty socket again for as long as that pays: after queries that came together, and ever less when none
// comes.
func TestPatience(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, err := net.DialUDP("udp", nil, conn.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p, err := newPackets(conn, 0)
	if err != nil {
		t.Fatal(err)
	}
	read := func(queries, patience int) {
		t.Helper()
		for range queries {
			if _, err := client.Write([]byte("query")); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond)) // enough to find nothing
		if n, err := p.read(); n != queries || (err == nil) != (queries > 0) {
			t.Errorf("read %d of %d: %v", n, queries, err)
		}
		if p.patience != patience {
			t.Errorf("%d queries: patience is %d, not %d", queries, p.patience, patience)
		}
	}
	read(1, 0)
	read(2, mostPatience)
	read(1, mostPatience)
	for left := mostPatience / 2; left > 0; left /= 2 {
		read(0, left)
	}
	read(0, 0)
	read(0, 0)
}
