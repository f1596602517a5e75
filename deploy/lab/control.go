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
	"sync"
	"time"
)

// serveControl answers the control API on loopback: GET /lab, POST /lab/regions/{region}/kill and …/start.
func (l *Lab) serveControl(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /lab", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(l.Fleet())
	})
	act := func(do func(string) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Origin") != "" { // no web page has any business here
				http.Error(w, "the lab's control is not for browsers", http.StatusForbidden)
				return
			}
			if err := do(r.PathValue("region")); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		}
	}
	mux.HandleFunc("POST /lab/regions/{region}/kill", act(l.KillRegion))
	mux.HandleFunc("POST /lab/regions/{region}/start", act(l.StartRegion))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l.control); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the lab's control API: %w", err)
	}
	return nil
}

// relayAdmin joins each connection to AdminAddr with the admin API of the first node that lives.
func (l *Lab) relayAdmin(ctx context.Context) error {
	var open sync.WaitGroup
	defer open.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.admin.Close() })
	defer stop()
	for {
		c, err := l.admin.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the CLI's way in on %s: %w", AdminAddr, err)
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
type Control struct{ Client *http.Client }

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
		return f, fmt.Errorf("what answers on %s is not a lab: %w", ControlAddr, err)
	}
	return f, nil
}

// KillRegion ends every process of a region at once.
func (c Control) KillRegion(ctx context.Context, region string) error {
	_, err := c.call(ctx, http.MethodPost, "/lab/regions/"+region+"/kill")
	return err
}

// StartRegion starts a region's processes again.
func (c Control) StartRegion(ctx context.Context, region string) error {
	_, err := c.call(ctx, http.MethodPost, "/lab/regions/"+region+"/start")
	return err
}

func (c Control) call(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+ControlAddr+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoLab, err)
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
