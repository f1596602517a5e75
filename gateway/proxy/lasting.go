package proxy

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"landfall/gateway/canary"
	"landfall/gateway/jwtauth"
	"landfall/gateway/ratelimit"
)

// Lasting is what requests leave behind that a reload must not forget, and the goroutines that they start: it lives as
// long as the node does and is lent to the Proxy of each configuration in turn. Safe for concurrent use.
type Lasting struct {
	ctx     context.Context // of all that runs here
	cancel  context.CancelFunc
	running sync.WaitGroup
	copies  chan struct{} // held by each mirrored request under way

	controls atomic.Pointer[Controls]

	mu     sync.Mutex
	trials map[trialKey]*canary.Trial
	limits map[string]heldLimit
	keys   map[keysName]*jwtauth.Keys
	client *http.Client // for keys and forward auth

	// Limits are those that are shared with other nodes.
	Limits *ratelimit.Fleet
}

// NewLasting makes what the Proxies of a node share. Close ends it.
func NewLasting() *Lasting {
	l := &Lasting{copies: make(chan struct{}, maxCopies), trials: map[trialKey]*canary.Trial{}, limits: map[string]heldLimit{}, keys: map[keysName]*jwtauth.Keys{}, client: newAuthClient(), Limits: ratelimit.NewFleet()}
	l.controls.Store(new(Controls))
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Close ends what runs and waits for it. No Proxy may serve any more.
func (l *Lasting) Close() {
	l.cancel()
	for _, keys := range l.keys {
		keys.Close()
	}
	l.running.Wait()
	l.client.CloseIdleConnections()
}
