package storm

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Origin is a server with so many workers, each of which is busy with a request for a fixed time. What comes meanwhile
// waits in line, first come first served, and is worked on even when nobody waits for the answer any more: as servers do.
type Origin struct {
	URL string

	work    time.Duration
	server  *http.Server
	done    chan struct{}
	arrived atomic.Int64

	mu      sync.Mutex
	workers int
	busy    int
	line    []chan struct{}
}

// maxLine bounds the requests that wait in line.
const maxLine = 10_000

// newOrigin starts an origin on a free port. Close ends it.
func newOrigin(workers int, work time.Duration) (*Origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &Origin{URL: "http://" + l.Addr().String(), work: work, workers: workers, done: make(chan struct{})}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(o.done)
		_ = o.server.Serve(l) // ends with Close
	}()
	return o, nil
}

// ServeHTTP answers once a worker has had its time with the request.
func (o *Origin) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	o.arrived.Add(1)
	turn, ok := o.queue()
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	<-turn
	time.Sleep(o.work)
	o.mu.Lock()
	o.busy--
	o.next()
	o.mu.Unlock()
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("done\n")) // who asked may be gone
}

func (o *Origin) queue() (turn chan struct{}, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.line) >= maxLine {
		return nil, false
	}
	turn = make(chan struct{})
	o.line = append(o.line, turn)
	o.next()
	return turn, true
}

// next gives idle workers those who wait. o.mu is held.
func (o *Origin) next() {
	for o.busy < o.workers && len(o.line) > 0 {
		o.busy++
		close(o.line[0])
		o.line = o.line[1:]
	}
}

// resize changes how many workers there are. Those that go finish what they have.
func (o *Origin) resize(workers int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.workers = workers
	o.next()
}

// Close ends the origin. Who still waits in line is served by it all the same: nobody hears the answer.
func (o *Origin) Close() {
	o.resize(maxLine)
	_ = o.server.Close()
	<-o.done
}
