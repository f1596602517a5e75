package cache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"
)

// way is how a node fetches an object: from its holder, which asks the last node, which asks the origin; a step that is
// the node itself, or that fails, is left out.
func (f *fleet) way(n, from *simNode, object int) Fetch {
	if !f.shared {
		return f.origin
	}
	last := f.nodes[len(f.nodes)-1]
	var steps []*simNode
	switch holder := f.nodes[object%len(f.nodes)]; {
	case n == from && holder != n && last != n:
		steps = []*simNode{holder, last}
	case n == from && holder != n:
		steps = []*simNode{holder}
	case last != n:
		steps = []*simNode{last}
	}
	return func(ctx context.Context, r *http.Request) (*http.Response, error) {
		asking := AskingOf(ctx)
		if asking == nil || !asking.Shareable {
			return f.origin(ctx, r)
		}
		known := n.knows()
		for i, step := range slices.Compact(steps) {
			resp, err := f.askNode(ctx, r, n, step, object, known)
			if err == nil {
				asking.Detail = "peer"
				asking.Unsure = resp.Header.Get(HeaderStale) != ""
				asking.Elsewhere = i == 0 && !asking.Holds && f.n(2) == 0
				return resp, nil
			}
		}
		return f.origin(ctx, r)
	}
}

func (n *simNode) knows() (out []int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range n.known {
		out = append(out, id)
	}
	return out
}

func (n *simNode) reached(known []int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !slices.ContainsFunc(known, func(id int) bool { return !n.known[id] })
}

// askNode asks another node's cache, over a network that takes its time, if that node has applied what is known.
func (f *fleet) askNode(ctx context.Context, r *http.Request, from, to *simNode, object int, known []int) (*http.Response, error) {
	f.pause(50 * time.Millisecond)
	if f.bug != "blind" && !to.reached(known) {
		return nil, errors.New("behind")
	}
	in := httptest.NewRequest("GET", r.URL.String(), nil).WithContext(context.WithoutCancel(ctx))
	in.Header = r.Header.Clone()
	w, held := httptest.NewRecorder(), to.held()
	if held == nil {
		return nil, errors.New("it does not run")
	}
	out := held.Serve(w, in, view(in), Policy{Peer: true}, f.way(to, from, object))
	if out.Err != nil {
		return nil, out.Err
	}
	f.pause(50 * time.Millisecond)
	res := w.Result()
	if out.Aborted {
		res.Body = io.NopCloser(io.MultiReader(res.Body, broken{}))
	}
	return res, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
