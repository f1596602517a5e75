package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Canaries are promoted and taken back by operators.
type Canaries interface {
	// Canaries are those of the config, sorted by service and target.
	Canaries() []Canary
	// SetCanary sets a known canary's weight on every node, or takes it back, or lets the config hold again when spec is nil.
	SetCanary(ctx context.Context, service, to string, spec *CanarySpec, by string) (CanaryResult, error)
}

// CanarySpec is how an operator wants a canary.
type CanarySpec struct {
	Weight  float64 `json:"weight" doc:"Percent of the clients that it serves, 0 to 100; 100 promotes it."`
	Stopped bool    `json:"stopped,omitempty" doc:"Take it back: nobody goes there any more, not even those with its header or cookie."`
	Reason  string  `json:"reason,omitempty" doc:"Why, for the others: at most 512 bytes without control characters."`
}

// Canary is a service that takes a part of another's clients on trial.
type Canary struct {
	Service string     `json:"service" doc:"The service whose clients it takes."`
	To      string     `json:"to" doc:"The service that takes them."`
	State   string     `json:"state" doc:"configured: as the config says; set: an operator set its weight; stopped: it was taken back." enum:"configured,set,stopped"`
	Weight  float64    `json:"weight" doc:"Percent of the clients that it serves now."`
	Config  float64    `json:"config" doc:"What the config says."`
	Reason  string     `json:"reason,omitempty" doc:"Why it was set or taken back."`
	SetBy   string     `json:"set_by,omitempty" doc:"Who did: the name of a token, loopback, or rollback for the fleet itself."`
	Node    string     `json:"node,omitempty" doc:"The node that took it back by itself."`
	Since   time.Time  `json:"since,omitzero" doc:"When."`
	Window  Duration   `json:"window" doc:"How far back the figures of the two sides look."`
	Stable  CanarySide `json:"stable" doc:"What the stable side did, as this node saw it."`
	Canary  CanarySide `json:"canary" doc:"What the canary did, as this node saw it."`
}

// CanarySide is what one of the two sides did.
type CanarySide struct {
	Requests int     `json:"requests" doc:"Requests that went to origins."`
	Failed   int     `json:"failed" doc:"Of these, those that had a 5xx or no answer."`
	P99      float64 `json:"p99_ms" doc:"The 99th percentile of the time to the head of the others' answers, in milliseconds; 0: none."`
}

// CanaryResult is what a change of a canary came to. It is durable on the answering node in any case.
type CanaryResult struct {
	Canary  Canary       `json:"canary" doc:"The canary as it holds now."`
	Applied List[string] `json:"applied" doc:"Nodes that know of it."`
	Missing List[string] `json:"missing" doc:"Nodes that have not answered yet."`
}

type canaryList struct {
	Canaries List[Canary] `json:"canaries" doc:"The canaries of the config, sorted by service and target."`
}

func (a *API) canaryOperations() []operation {
	set := func(method, id, summary string) operation {
		o := operation{method: method, path: "/v1/canaries/{service}/{to}", id: id, summary: summary, scope: scopeDrain, result: CanaryResult{},
			query: []parameter{timeoutParameter}, handle: a.setCanary}
		if method == http.MethodPut {
			o.body = CanarySpec{}
		}
		return o
	}
	return []operation{
		get("/v1/canaries", "listCanaries", "The canaries, and how they fare beside the stable side", canaryList{}, func(*call) (any, error) {
			return canaryList{a.backend.Canaries()}, nil
		}),
		set(http.MethodPut, "setCanary", "Set a canary's weight on every node, promote it or take it back"),
		set(http.MethodDelete, "resetCanary", "Let the config of a canary hold again"),
	}
}

func (a *API) setCanary(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	service, to, found := c.PathValue("service"), c.PathValue("to"), false
	var known []string
	for _, x := range a.backend.Canaries() {
		known = append(known, x.Service+"/"+x.To)
		found = found || x.Service == service && x.To == to
	}
	if !found {
		return 0, nil, NotFound("canary", service+"/"+to, known)
	}
	var spec *CanarySpec
	if c.Method == http.MethodPut {
		var s CanarySpec
		if err := decodePercent(c.body, &s.Weight, boolField("stopped", &s.Stopped), reasonField(&s.Reason)); err != nil {
			return 0, nil, err
		}
		if s.Stopped && s.Weight != 0 {
			return 0, nil, Invalid("weight", "must be 0 for a canary that is stopped")
		}
		spec = &s
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetCanary(ctx, service, to, spec, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

// Canaries are the canaries of the fleet.
func (c *Client) Canaries(ctx context.Context) ([]Canary, error) {
	v, err := fetch[canaryList](ctx, c, "/v1/canaries", nil)
	return v.Canaries, err
}

// SetCanary sets a canary's weight or takes it back; nil lets the config hold again. The node waits up to wait for the
// others (0: its own default).
func (c *Client) SetCanary(ctx context.Context, service, to string, spec *CanarySpec, wait time.Duration) (CanaryResult, error) {
	method, body := http.MethodDelete, any(nil)
	if spec != nil {
		method, body = http.MethodPut, spec
	}
	return send[CanaryResult](ctx, c, method, "/v1/canaries/"+url.PathEscape(service)+"/"+url.PathEscape(to), waitQuery(wait), body)
}
