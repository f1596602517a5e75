package mesh

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	bareLinks  = 67 // of a node of TestNodeCost
	barePacket = 40 // bytes: a pulse with HTTP/2 and TLS around it
)

// TestBareCost measures what TestNodeCost's links cost without a mesh: TCP connections that carry as many packets of the
// same size both ways, no TLS, no HTTP/2 and nobody who looks into them. It tells how much of a node's cost is this
// machine's price of waking up for a packet, which varies between machines more than anything that the mesh does.
//
//	go test ./routing/mesh -run TestBareCost -v -mesh.cost 60s
func TestBareCost(t *testing.T) {
	if *costSpan == 0 {
		t.Skip("it takes a while: -mesh.cost 60s")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var peers sync.WaitGroup
	defer peers.Wait()
	defer func() { _ = ln.Close() }()
	met := make(chan struct{}, bareLinks)
	peers.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			peers.Go(func() { beatBarely(c) })
			peers.Go(func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() })
			met <- struct{}{}
		}
	})
	cmd := exec.Command(os.Args[0], "-test.run", "^TestBareCostChild$", "-test.timeout", "0")
	cmd.Env = append(os.Environ(), "MESH_BARE_PEER="+ln.Addr().String())
	ask, _ := cmd.StdinPipe()
	answers, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ask.Close(); _ = cmd.Wait() }()
	lines := json.NewDecoder(answers)
	cpu := func() time.Duration {
		var used time.Duration
		_, _ = io.WriteString(ask, "\n")
		if err := lines.Decode(&used); err != nil {
			t.Fatal(err)
		}
		return used
	}
	for range bareLinks {
		<-met
	}
	used, began := cpu(), time.Now()
	over := time.NewTimer(*costSpan)
	<-over.C
	used = cpu() - used
	t.Logf("%d bare connections that beat as a mesh does: %.2f%% of a core", bareLinks, 100*used.Seconds()/time.Since(began).Seconds())
}

// beatBarely sends a packet each heartbeat until the connection ends; each at its own moment, as peers do.
func beatBarely(c net.Conn) {
	tick := time.NewTicker(defaultHeartbeat)
	defer tick.Stop()
	for range tick.C {
		if _, err := c.Write(make([]byte, barePacket)); err != nil {
			return
		}
	}
}

// TestBareCostChild is the process that TestBareCost measures.
func TestBareCostChild(t *testing.T) {
	at := os.Getenv("MESH_BARE_PEER")
	if at == "" {
		t.Skip("TestBareCost runs it")
	}
	var conns []net.Conn
	var readers sync.WaitGroup
	defer readers.Wait()
	for i := range bareLinks {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		conns = append(conns, c)
		readers.Go(func() { _, _ = io.CopyBuffer(io.Discard, struct{ io.Reader }{c}, make([]byte, 4096)) })
		// The peers' moments spread over a heartbeat.
		apart := time.NewTimer(defaultHeartbeat * time.Duration(i%7+1) / 16)
		<-apart.C
	}
	over := make(chan struct{})
	defer close(over)
	readers.Go(func() {
		tick := time.NewTicker(defaultHeartbeat)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			for _, c := range conns {
				_, _ = c.Write(make([]byte, barePacket))
			}
		}
	})
	in := bufio.NewReader(os.Stdin)
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		_ = json.NewEncoder(os.Stdout).Encode(time.Duration(u.Utime.Nano() + u.Stime.Nano()))
	}
}
