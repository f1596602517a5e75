package mesh

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"landfall/routing"
)

// Each invariant that the search holds must see its own breach: here a bug is planted for each, in a fleet that is well
// otherwise. The word of a minority has TestSimMinorityIsCaught.
func TestSimPlantedBugsAreCaught(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(h *history)
		want  string // of the breach; empty: none
	}{
		"nothing planted": {func(h *history) { h.run(2 * time.Second) }, ""},
		"registers that differ under equal digests": {func(h *history) {
			n := h.s.nodes[1]
			e := n.core.table.entries["k/1"]
			e.Value = []byte(`"changed in memory"`)
			n.core.table.entries["k/1"] = e
		}, "hold different registers"},
		"an acknowledged write is lost everywhere": {func(h *history) {
			for _, n := range h.s.nodes {
				n.core.table.drop("k/1")
				delete(n.disk, "k/1")
			}
		}, "has lost k/1"},
		"a disk that loses what it was given": {func(h *history) {
			h.set(h.s.nodes[0], "k/2", WaitAll)
			for k := range 400 {
				h.s.push(simEvent{at: h.s.now + time.Duration(k)*time.Millisecond, kind: simCall, call: func() { clear(h.s.nodes[1].disk) }})
			}
			h.run(2 * time.Second)
		}, "on disk, but holds"},
		"a wait for all that forgets one": {func(h *history) {
			n := h.s.nodes[0]
			h.writes[[2]string{n.name, fmt.Sprint(n.life, "/", 99)}] = wrote{"k/1", WaitAll}
			h.result(n, result{token: 99, stamp: n.core.table.entries["k/1"].Stamp, applied: []string{n.name}})
		}, "waited for all, yet"},
		"a node that withdraws all it can't see": {func(h *history) {
			h.jury.planted = func(st *seat, nodes map[string][]routing.Node) {
				if isolated, _ := st.judge.Isolated(); isolated {
					clear(nodes)
				}
			}
			h.cutAll()
			h.run(10 * time.Second)
			clear(h.s.cuts)
		}, "has no answer left"},
		"the same cut without the bug": {func(h *history) {
			h.cutAll()
			h.run(10 * time.Second)
			clear(h.s.cuts)
		}, ""},
		"a node that talks too much": {func(h *history) {
			n := h.s.nodes[0]
			for k := range 9000 {
				h.s.push(simEvent{at: h.s.now + time.Duration(k)*time.Millisecond, kind: simCall, call: func() {
					n.core.begin()
					n.core.send(n.core.lineup[0], n.core.whole(n.name))
					h.s.carry(0, &n.core.out)
				}})
			}
			h.run(10 * time.Second)
		}, "bytes a second"},
		"a node that never comes back": {func(h *history) {
			h.s.cuts[[2]string{h.s.nodes[0].name, "*"}] = true
			h.run(5 * time.Second)
		}, "the fleet is not whole"},
	} {
		t.Run(name, func(t *testing.T) {
			var told []string
			h := quietHistory(t, &told)
			c.plant(h)
			h.end()
			all := strings.Join(told, "\n")
			if c.want == "" && all != "" || !strings.Contains(all, c.want) {
				t.Errorf("wanted %q, told: %s", c.want, all)
			}
		})
	}
}

// quietHistory is a fleet in which one write was acknowledged and nothing went wrong.
func quietHistory(t *testing.T, told *[]string) *history {
	s, _ := settled(t, 71, 4, 1)
	h := &history{
		tell: func(format string, args ...any) { *told = append(*told, fmt.Sprintf(format, args...)) },
		s:    s, writes: map[[2]string]wrote{}, wiped: map[string]int{}, weighs: make([]weighed, len(s.nodes)), window: s.now,
	}
	for i, n := range s.nodes {
		h.weighs[i] = weighed{n.sent, n.messages}
	}
	h.jury, s.onResult = newJury(s, h.fail), h.result
	h.set(s.nodes[0], "k/1", WaitAll)
	h.run(2 * time.Second)
	if len(h.acked) != 1 {
		t.Fatalf("%d writes are acknowledged", len(h.acked))
	}
	return h
}

func (h *history) set(n *simNode, key string, level Wait) {
	h.writes[[2]string{n.name, fmt.Sprint(n.life, "/", n.writes+1)}] = wrote{key, level}
	h.s.set(n, key, "x", level)
}

// cutAll parts every region from every other.
func (h *history) cutAll() {
	for _, a := range h.s.regions() {
		for _, b := range h.s.regions() {
			h.s.cuts[[2]string{a, b}] = a != b
		}
	}
}
