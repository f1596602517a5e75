package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
)

// serveControl serves the control API on loopback until ctx ends.
func (l *Lab) serveControl(ctx context.Context) error {
	srv := &http.Server{Handler: l.controlHandler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(netutil.LimitListener(l.control, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the lab's control API: %w", err)
	}
	return nil
}

// maxConnections bounds the connections to the control API, and those through the way in to the admin API.
const maxConnections = 128

// controlHandler answers GET /lab, POST /lab/regions/{region}/kill, …/start and …/network. No web page has any business here, so a
// request that a browser sent for one is refused: by its Origin, or by a Host that a page's own name server made lead here.
func (l *Lab) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /lab", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(l.Fleet())
	})
	act := func(do func(string) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			name := r.PathValue("region")
			if _, ok := l.Fleet().Region(name); !ok {
				http.Error(w, fmt.Sprintf("the lab has no region %q", name), http.StatusNotFound)
				return
			}
			if err := do(name); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
			}
		}
	}
	mux.HandleFunc("POST /lab/regions/{region}/kill", act(l.KillRegion))
	mux.HandleFunc("POST /lab/regions/{region}/start", act(l.StartRegion))
	mux.HandleFunc("POST /lab/regions/{region}/network", l.serveTrouble)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if a, notIP := netip.ParseAddr(host); err != nil || host != "localhost" && (notIP != nil || !a.IsLoopback()) || r.Header.Get("Origin") != "" {
			http.Error(w, "the lab's control is not for browsers", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// relayAdmin joins each connection to AdminAddr with the admin API of the first node that lives.
func (l *Lab) relayAdmin(ctx context.Context) error {
	var open sync.WaitGroup
	defer open.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.admin.Close() })
	defer stop()
	in := netutil.LimitListener(l.admin, maxConnections)
	for {
		c, err := in.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("the CLI's way in on %s: %w", l.admin.Addr(), err)
		}
		open.Go(func() { l.relay(ctx, c) })
	}
}

func (l *Lab) relay(ctx context.Context, c net.Conn) {
	defer c.Close()
	for _, r := range l.Fleet().Regions {
		for _, n := range r.Nodes {
			if n.PID == 0 {
				continue
			}
			to, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", n.Addr, adminPort), time.Second)
			if err != nil {
				continue
			}
			stop := context.AfterFunc(ctx, func() { _ = c.Close(); _ = to.Close() })
			defer stop()
			join(c, to)
			return
		}
	}
}

// join copies both ways until either side ends.
func join(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(a, b)
		_, _ = a.Close(), b.Close()
		close(done)
	}()
	_, _ = io.Copy(b, a)
	_, _ = a.Close(), b.Close()
	<-done
}

// Control talks to a lab that runs, in this process or another.
type Control struct {
	Addr   string // host:port, such as ControlAddr tells
	Client *http.Client
}

// ErrNoLab tells that no lab runs on this machine.
var ErrNoLab = errors.New("no lab runs on this machine; start one with `landfall lab`")

// Fleet asks the lab what runs.
func (c Control) Fleet(ctx context.Context) (Fleet, error) {
	var f Fleet
	body, err := c.call(ctx, http.MethodGet, "/lab")
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(body, &f); err != nil {
		return f, fmt.Errorf("what answers on %s is not a lab: %w", c.Addr, err)
	}
	if len(f.Regions) == 0 {
		return f, fmt.Errorf("what answers on %s is not a lab: it has no regions", c.Addr)
	}
	return f, nil
}

// KillRegion ends every process of a region at once.
func (c Control) KillRegion(ctx context.Context, region string) error {
	_, err := c.call(ctx, http.MethodPost, "/lab/regions/"+url.PathEscape(region)+"/kill")
	return err
}

// StartRegion starts a region's processes again.
func (c Control) StartRegion(ctx context.Context, region string) error {
	_, err := c.call(ctx, http.MethodPost, "/lab/regions/"+url.PathEscape(region)+"/start")
	return err
}

// SetTrouble breaks or mends the network between a region and the others.
func (c Control) SetTrouble(ctx context.Context, region string, t Trouble) error {
	_, err := c.call(ctx, http.MethodPost, fmt.Sprintf("/lab/regions/%s/network?cut=%t&loss=%d&clock=%s", url.PathEscape(region), t.Cut, t.Loss, t.Clock))
	return err
}

func (c Control) call(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Addr+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Client.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w (%w)", ErrNoLab, err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the lab: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("ask the lab: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the lab refused: %s", bytes.TrimSpace(body))
	}
	return body, nil
}
