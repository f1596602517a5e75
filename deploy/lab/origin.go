package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"
)

// RunOrigins serves the demo origins of one region at the given addresses until ctx ends. It is a process of its own, so
// that killing a region kills its origins as well.
func RunOrigins(ctx context.Context, region string, addrs []string) error {
	var listeners []net.Listener
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			return fmt.Errorf("the demo origin of %s can't listen on %s: %w", region, addr, err)
		}
		listeners = append(listeners, l)
	}
	return serveOrigins(ctx, region, listeners)
}

func serveOrigins(ctx context.Context, region string, listeners []net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, l := range listeners {
		srv := &http.Server{Handler: originHandler(region, fmt.Sprintf("%s-origin-%d", region, i+1)), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
		g.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			return srv.Close()
		})
	}
	return g.Wait()
}

// originHandler is a small shop: pages that name their region, cacheable assets, an API, a slow page, a stream, an echo.
func originHandler(region, name string) http.Handler {
	mux := http.NewServeMux()
	started := time.Now()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Etag", fmt.Sprintf(`"home-%s"`, region))
		if r.Header.Get("If-None-Match") == w.Header().Get("Etag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintf(w, "<!doctype html><html lang=en><title>Shop</title><link rel=stylesheet href=/assets/app.css><h1>Hello from %s</h1><p>Origin %s.</p>\n", region, name)
	})
	mux.HandleFunc("GET /assets/{file}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "public, max-age=300")
		w.Header().Set("Etag", fmt.Sprintf(`"%s-%d"`, r.PathValue("file"), started.Unix()))
		fmt.Fprintf(w, "/* %s of %s, made %s */\n", r.PathValue("file"), region, time.Now().UTC().Format(time.RFC3339Nano))
		for i := range 200 {
			fmt.Fprintf(w, ".item-%d { color: #%06x; margin: %dpx }\n", i, i*4099, i%17)
		}
	})
	versioned := versions{}
	mux.HandleFunc("GET /versions/{id}", versioned.get)
	mux.HandleFunc("PUT /versions/{id}", versioned.put)
	new(replays).handle(mux)
	mux.HandleFunc("/api/{thing}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintf(w, `{"region":%q,"origin":%q,"thing":%q,"method":%q,"bytes":%d,"client":%q,"country":%q,"request_id":%q}`+"\n",
			region, name, r.PathValue("thing"), r.Method, len(body), r.Header.Get("X-Real-Ip"), r.Header.Get("X-Client-Country"), r.Header.Get("X-Request-Id"))
	})
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
		if err != nil || ms < 0 || ms > 60_000 {
			ms = 1000
		}
		select {
		case <-r.Context().Done():
		case <-time.After(time.Duration(ms) * time.Millisecond):
			w.Header().Set("Cache-Control", "no-store")
			fmt.Fprintf(w, "%s took %d ms\n", name, ms)
		}
	})
	mux.HandleFunc("GET /stream", streamTicks(region))
	mux.HandleFunc("GET /echo", echoWebSocket)
	return mux
}

// streamTicks is a stream of server-sent events, one each half second, for a minute at most.
func streamTicks(region string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for i := range 120 {
			fmt.Fprintf(w, "id: %d\ndata: tick %d from %s\n\n", i, i, region)
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
		}
	}
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // a demo takes any Origin
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	for {
		kind, msg, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, msg) != nil {
			return
		}
	}
}

// ParentPipeEnv names the environment variable with the number of the file descriptor that a child of the lab watches.
const ParentPipeEnv = "LANDFALL_PARENT_FD"

// WatchParent ends this process when its parent is gone: the parent holds the other end of a pipe and never writes. It
// does nothing in a process that no lab started.
func WatchParent(exit func(code int)) {
	fd, err := strconv.Atoi(os.Getenv(ParentPipeEnv))
	if err != nil || fd < 3 {
		return
	}
	pipe := os.NewFile(uintptr(fd), "parent")
	go func() {
		_, _ = pipe.Read(make([]byte, 1)) // returns at the end of the parent, whatever the cause
		exit(1)
	}()
}
