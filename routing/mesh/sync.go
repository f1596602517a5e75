package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds of register exchanges.
const (
	maxExchange  = 4 << 20 // bytes of a body
	pageBytes    = 1 << 20 // about how much one page carries
	maxPages     = 128     // of one exchange
	pushTimeout  = 5 * time.Second
	pushParallel = 64
	pushTries    = 2 // the second for a connection that broke under the first
)

// exchange is the body of a request to /mesh/v1/registers. Registers are to be merged; Sums, when present, asks for what
// the receiver holds in the buckets where its sums differ, after the key After.
type exchange struct {
	Fleet     string     `json:"fleet"`
	Node      string     `json:"node"`
	Registers []Register `json:"registers,omitempty"`
	Sums      []uint64   `json:"sums,omitempty"`
	After     string     `json:"after,omitempty"`
}

// exchanged is the answer. Next is where the next page begins, empty at the end.
type exchanged struct {
	Refused   []refusal  `json:"refused,omitempty"`
	Sums      []uint64   `json:"sums,omitempty"`
	Registers []Register `json:"registers,omitempty"`
	Next      string     `json:"next,omitempty"`
}

func decodeExchange(raw []byte) (exchange, error) {
	var x exchange
	if err := json.Unmarshal(raw, &x); err != nil {
		return x, fmt.Errorf("an exchange of registers is not understood: %w", err)
	}
	switch {
	case !validText(x.Fleet, maxLabel) || !validName(x.Node):
		return x, errors.New("an exchange of registers names no fleet or no node")
	case len(x.Registers) > MaxRegisters:
		return x, fmt.Errorf("more than %d registers at once", MaxRegisters)
	case len(x.Sums) != 0 && len(x.Sums) != buckets:
		return x, fmt.Errorf("an exchange of registers needs %d sums", buckets)
	case len(x.After) > MaxKey:
		return x, fmt.Errorf("an exchange of registers can't go on after a key of more than %d bytes", MaxKey)
	}
	return x, nil
}

func decodeExchanged(raw []byte) (exchanged, error) {
	var x exchanged
	if err := json.Unmarshal(raw, &x); err != nil {
		return x, fmt.Errorf("the answer to an exchange of registers is not understood: %w", err)
	}
	if len(x.Registers) > MaxRegisters || len(x.Refused) > MaxRegisters || len(x.Next) > MaxKey ||
		len(x.Sums) != 0 && len(x.Sums) != buckets {
		return x, errors.New("the answer to an exchange of registers exceeds its bounds")
	}
	return x, nil
}

func (m *Mesh) serveRegisters(w http.ResponseWriter, r *http.Request) {
	m.metrics.received("registers")
	body, ok := m.readBody(w, r, maxExchange)
	if !ok {
		return
	}
	x, err := decodeExchange(body)
	if err != nil {
		m.metrics.refused.WithLabelValues("malformed").Inc()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := m.identify(r, x.Fleet, x.Node); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	var answer exchanged
	if len(x.Registers) > 0 {
		answer.Refused = m.registry.merge(x.Node, x.Registers)
	}
	if len(x.Sums) > 0 {
		answer.Sums = m.registry.sums()
		answer.Registers, answer.Next = m.registry.page(m.registry.differing(x.Sums), x.After, pageBytes)
	}
	answerJSON(w, answer)
}

// send makes one exchange with a peer.
func (m *Mesh) send(ctx context.Context, peer string, x exchange) (exchanged, error) {
	x.Fleet, x.Node = m.opt.Fleet, m.opt.Node
	m.metrics.sent("registers")
	raw, _, err := m.post(ctx, peer, pathRegisters, encode(x), maxExchange)
	if err != nil {
		return exchanged{}, err
	}
	return decodeExchanged(raw)
}

// runSyncs repairs differences with one peer whenever its beats tell of one.
func (m *Mesh) runSyncs(ctx context.Context, name string, now chan struct{}) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-now:
		case <-ctx.Done():
			return
		}
		if err := m.repair(ctx, name); err == nil {
			m.markReady()
		} else if ctx.Err() == nil {
			m.log.Warn("registers could not be compared with a peer; it is tried again", "peer", name, "error", err)
		}
		pause.Reset(syncPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// repair makes the registers here and at a peer equal: it takes what the peer holds in the buckets that differ, then
// sends what the peer lacks.
func (m *Mesh) repair(ctx context.Context, peer string) error {
	ask := exchange{Sums: m.registry.sums()}
	theirs := map[string]uint64{}
	var differ [buckets]bool
	for page := 0; ; page++ {
		if page >= maxPages {
			return fmt.Errorf("the registers of %s have no end", peer)
		}
		got, err := m.sendWithin(ctx, peer, ask)
		if err != nil {
			return err
		}
		if page == 0 {
			differ = m.registry.differing(got.Sums)
		}
		for _, r := range got.Registers {
			if c, cerr := r.canonical(); cerr == nil {
				theirs[c.Key] = c.fingerprint()
			}
		}
		m.registry.merge(peer, got.Registers)
		if got.Next == "" {
			break
		}
		if got.Next <= ask.After {
			return fmt.Errorf("the pages of %s don't advance", peer)
		}
		ask.After = got.Next
	}
	return m.giveBack(ctx, peer, differ, theirs)
}

func (m *Mesh) giveBack(ctx context.Context, peer string, differ [buckets]bool, theirs map[string]uint64) error {
	after := ""
	for range maxPages {
		mine, next := m.registry.page(differ, after, pageBytes)
		mine = slices.DeleteFunc(mine, func(r Register) bool {
			print, has := theirs[r.Key]
			return has && print == r.fingerprint()
		})
		if len(mine) > 0 {
			if _, err := m.sendWithin(ctx, peer, exchange{Registers: mine}); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		after = next
	}
	return nil
}

func (m *Mesh) sendWithin(ctx context.Context, peer string, x exchange) (exchanged, error) {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	return m.send(ctx, peer, x)
}

// Ack tells which nodes have applied a register: merged it, written it to disk and told their owners. Both lists are
// sorted. Dead nodes are in neither; they get it when they come back.
type Ack struct {
	Applied []string `json:"applied"` // this node included
	Missing []string `json:"missing"` // live nodes that did not confirm in time; anti-entropy brings it to them
}

// Set writes a register: value is JSON of at most MaxValue bytes; nil or null deletes. It is on this node's disk, and
// OnRegister has been called, before the others are told. An error means that nothing was written. When ctx ends early,
// the nodes not heard from are in Missing. It must not be called from OnRegister.
func (m *Mesh) Set(ctx context.Context, key string, value json.RawMessage) (Ack, error) {
	return m.SetFor(ctx, key, value, 0)
}

// SetFor is Set for a register that every node drops ttl after now, rounded up to seconds; 0: never.
func (m *Mesh) SetFor(ctx context.Context, key string, value json.RawMessage, ttl time.Duration) (Ack, error) {
	if ttl < 0 {
		return Ack{}, fmt.Errorf("mesh: the TTL of %q must not be negative", key)
	}
	r, err := m.registry.set(key, value, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return Ack{}, fmt.Errorf("mesh: %w", err)
	}
	ack := Ack{Applied: []string{m.opt.Node}, Missing: []string{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, pushParallel)
	for _, name := range m.peers((*member).live) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ok := m.push(ctx, name, r)
			mu.Lock()
			defer mu.Unlock()
			if ok {
				ack.Applied = append(ack.Applied, name)
			} else {
				ack.Missing = append(ack.Missing, name)
			}
		})
	}
	wg.Wait()
	slices.Sort(ack.Applied)
	slices.Sort(ack.Missing)
	return ack, nil
}

// push sends one register to one peer and tells whether it was taken. A peer that can't be reached gets one short try.
func (m *Mesh) push(ctx context.Context, peer string, r Register) bool {
	tries, timeout := pushTries, pushTimeout
	if len(m.peers(func(mb *member) bool { return mb.name == peer && mb.reach.standing == unreachable })) > 0 {
		tries, timeout = 1, time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for range tries {
		got, err := m.send(ctx, peer, exchange{Registers: []Register{r}})
		if err == nil {
			return len(got.Refused) == 0
		}
		m.log.Debug("a register did not reach a peer", "peer", peer, "key", r.Key, "error", err)
		if ctx.Err() != nil {
			return false
		}
	}
	return false
}

// Registers is the registers whose keys begin with prefix, sorted by key; deleted and expired ones are left out.
func (m *Mesh) Registers(prefix string) []Register { return m.registry.list(prefix) }
