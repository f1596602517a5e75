package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"landfall/gateway/admin"
)

func FuzzNetwork(f *testing.F) {
	f.Add("us-east cut\neu-west loss 5%\nus-east loss 2.5%\n")
	f.Add("a loss 101%")
	f.Add("\n\n cut")
	f.Fuzz(func(t *testing.T, text string) {
		ways, err := parseNetwork([]byte(text))
		for region, w := range ways {
			if err != nil || region == "" || strings.ContainsAny(region, " \n") || !(w.loss >= 0 && w.loss <= 1) {
				t.Fatalf("%q: %q %+v %v", text, region, w, err)
			}
		}
	})
}

// What is sent while the network is cut comes when it is mended, what is lost comes late, a deadline holds, and closing gives
// all of it up.
func TestRoughConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(filepath.Join(t.TempDir(), "network"))
		become := func(text string) {
			if err := os.WriteFile(n.path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := n.look(); err != nil {
				t.Fatal(err)
			}
		}
		a, far := net.Pipe()
		near := n.rough(a, "r2")
		got := make(chan time.Duration, 10)
		begun := time.Now()
		go func() {
			buf := make([]byte, 1)
			for {
				if _, err := io.ReadFull(far, buf); err != nil {
					close(got)
					return
				}
				got <- time.Since(begun)
			}
		}()
		send := func() error { _, err := near.Write([]byte("x")); return err }
		become("r2 cut\n")
		go func() { _ = send() }()
		<-time.After(time.Minute)
		if len(got) != 0 || !n.drops("r2") || n.drops("r1") {
			t.Errorf("%d bytes came over a cut network", len(got))
		}
		if err := near.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := send(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("past its deadline a write ends with %v", err)
		}
		_ = near.SetDeadline(time.Time{})
		become("")
		if d := <-got; d != time.Minute+time.Second {
			t.Errorf("it came after %s", d)
		}
		become("r2 loss 100%")
		begun = time.Now()
		if err := send(); err != nil || <-got < 5*lossDelay {
			t.Errorf("what is lost comes at once: %v", err)
		}
		become("r2 cut")
		refused := make(chan error)
		go func() { refused <- send() }()
		synctest.Wait()
		_ = near.Close()
		if err := <-refused; !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed, a write ends with %v", err)
		}
		_ = far.Close()
		if err := os.WriteFile(n.path, []byte("r2 mended"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := n.look(); err == nil || !n.drops("r2") {
			t.Errorf("a file that makes no sense was taken: %v", err)
		}
	})
}

// TestNodeWithoutLinksConfirms: a node whose process and links' ends all live, but nothing passes, finds out that it is cut
// off and confirms what it serves; once the network is mended it has applied what was purged meanwhile, and trusts its cache.
func TestNodeWithoutLinksConfirms(t *testing.T) {
	c := newCounting()
	c.set(nil, "Cache-Control: max-age=600")
	fleet := sharedFleet(t, 35, 3, 1, origin(t, c.ServeHTTP), "cache: {isolation: 500ms}")
	client := browser(t, fleet[0].listen["http"], nil)
	read := func(path string) (body, status string) {
		resp, body := get(t, client, "GET", "http://shop.test"+path)
		return body, strings.Join(resp.Header["Cache-Status"], ", ")
	}
	for _, path := range []string{"/page", "/other"} {
		read(path)
		if body, status := read(path); body != "0" || !strings.Contains(status, "hit") {
			t.Fatalf("%s: %q %q", path, body, status)
		}
	}
	trouble := func(texts ...string) {
		for i, p := range fleet {
			if err := os.WriteFile(p.n.o.Network, []byte(texts[i]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	trouble("r2 cut\nr3 cut\n", "r1 cut\n", "r1 cut\n")
	eventually(t, "it knows that it is cut off", func() bool { return fleet[0].hasEvent("cache.isolated") })
	c.version.Store(1)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	res, err := fleet[1].n.purge(ctx, admin.PurgeRequest{Service: "web", URLs: []string{"http://shop.test/other"}}, admin.WaitRegion, "test")
	if err != nil || len(res.Applied) != 1 {
		t.Fatalf("%+v %v", res, err)
	}
	if body, status := read("/page"); body != "1" || strings.Contains(status, "hit") {
		t.Errorf("cut off, it serves %q %q", body, status)
	}
	trouble("", "", "")
	eventually(t, "it is back", func() bool { return fleet[0].hasEvent("cache.rejoined") })
	if body, _ := read("/other"); body != "1" {
		t.Errorf("what was purged while it was cut off is served: %q", body)
	}
	asked := c.of("/page")
	if body, status := read("/page"); body != "1" || !strings.Contains(status, "hit") || c.of("/page") != asked {
		t.Errorf("back in the mesh, it serves %q %q", body, status)
	}
}
