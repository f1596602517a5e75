package mesh

import "sync"

// gate counts the goroutines that serve links, lets them in while the mesh runs, and waits for their end.
type gate struct {
	over chan struct{} // closed when all links end
	wg   sync.WaitGroup

	mu       sync.Mutex
	running  bool
	refusing bool
}

func newGate() *gate { return &gate{over: make(chan struct{})} }

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running = true
}

// refuse lets nobody in any more; who is in goes on.
func (g *gate) refuse() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refusing = true
}

// shut ends all links. It is called once.
func (g *gate) shut() {
	g.refuse()
	close(g.over)
}

// enter tells whether a link may begin; leave must then be called when it has ended.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.running || g.refusing {
		return false
	}
	g.wg.Add(1)
	return true
}

func (g *gate) leave() { g.wg.Done() }

func (g *gate) wait() { g.wg.Wait() }
