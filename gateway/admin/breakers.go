package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Breakers are opened and closed by operators, on every node.
type Breakers interface {
	// BreakerOrders are those in force, sorted by origin.
	BreakerOrders() []BreakerOrder
	// SetBreaker holds the circuit breakers of an origin open or closed, or leaves them to themselves when spec is nil.
	SetBreaker(ctx context.Context, origin string, spec *BreakerSpec, by string) (BreakerResult, error)
}

// BreakerSpec is how an operator wants an origin's circuit breaker.
type BreakerSpec struct {
	State  string   `json:"state" doc:"open: no request goes there; closed: every request does, whatever comes back." enum:"open,closed"`
	For    Duration `json:"for,omitzero" doc:"Leave it to itself again after this long, from 1s to 365d; absent: until it is told so."`
	Reason string   `json:"reason,omitempty" doc:"Why, for the others: at most 512 bytes without control characters."`
}

// BreakerOrder is an operator's word on an origin's circuit breaker.
type BreakerOrder struct {
	Origin  string    `json:"origin" doc:"URL or host:port of the origin."`
	State   string    `json:"state" doc:"What its breakers are held at." enum:"open,closed"`
	Reason  string    `json:"reason,omitempty" doc:"Why, as the operator wrote."`
	By      string    `json:"by" doc:"Who set it: the name of a token, or loopback."`
	Since   time.Time `json:"since" doc:"When it was set."`
	Expires time.Time `json:"expires,omitzero" doc:"When it ends by itself; absent: never."`
}

// BreakerResult is what a change of a breaker came to.
type BreakerResult struct {
	Origin  string        `json:"origin" doc:"The origin."`
	Changed bool          `json:"changed" doc:"Something else held before."`
	Order   *BreakerOrder `json:"order,omitempty" doc:"The order now in force; absent when the breaker is left to itself."`
	Applied List[string]  `json:"applied" doc:"Nodes that know of it."`
	Missing List[string]  `json:"missing" doc:"Nodes that have not answered yet."`
}

type breakerList struct {
	Breakers List[BreakerOrder] `json:"breakers" doc:"The orders in force, sorted by origin."`
}

func (a *API) breakerOperations() []operation {
	set := func(method, id, summary string) operation {
		o := operation{method: method, path: "/v1/origins/{origin}/breaker", id: id, summary: summary, scope: scopeDrain, result: BreakerResult{},
			query: []parameter{timeoutParameter}, handle: a.setBreaker}
		if method == http.MethodPut {
			o.body = BreakerSpec{}
		}
		return o
	}
	return []operation{
		set(http.MethodPut, "setBreaker", "Hold an origin's circuit breaker open or closed on every node"),
		set(http.MethodDelete, "resetBreaker", "Leave an origin's circuit breaker to itself"),
	}
}

func (a *API) setBreaker(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	origin := c.PathValue(DrainOrigin)
	var spec *BreakerSpec
	if c.Method == http.MethodPut {
		if err := a.checkDrainTarget(DrainTarget{Kind: DrainOrigin, Name: origin}, true); err != nil {
			return 0, nil, err
		}
		if spec, err = decodeBreaker(c.body); err != nil {
			return 0, nil, err
		}
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetBreaker(ctx, origin, spec, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

func decodeBreaker(data []byte) (*BreakerSpec, error) {
	var spec BreakerSpec
	if data == nil {
		return nil, invalidBody(`the body is missing; send {"state": "open"} or {"state": "closed"}`)
	}
	err := decodeObject(data, []field{
		stringField("state", func(s string) error {
			spec.State = s
			if s != "open" && s != "closed" {
				return fmt.Errorf("%q is not open or closed", clip(s, 40))
			}
			return nil
		}),
		stringField("for", func(s string) (err error) {
			if spec.For, err = ParseDuration(s); err != nil {
				return err
			}
			if spec.For.D() < minDrain || spec.For.D() > maxDrain {
				return fmt.Errorf("%s is out of range; give 1s to 365d", spec.For)
			}
			return nil
		}),
		reasonField(&spec.Reason),
	}, nil)
	if err == nil && spec.State == "" {
		err = Invalid("state", "is missing; give open or closed")
	}
	return &spec, err
}

// originNames are the origins of every pool, by URL and by host:port.
func (a *API) originNames() []string {
	var names []string
	for _, s := range a.backend.Services() {
		pools, err := a.backend.Pools(s.Name)
		if err != nil {
			continue // the service went in a reload between the two
		}
		for _, p := range pools {
			for _, o := range p.Origins {
				names = append(names, o.URL)
				if u, err := url.Parse(o.URL); err == nil {
					names = append(names, u.Host)
				}
			}
		}
	}
	return names
}

// Breakers are the operators' orders in force on circuit breakers.
func (c *Client) Breakers(ctx context.Context) ([]BreakerOrder, error) {
	v, err := fetch[breakerList](ctx, c, "/v1/breakers", nil)
	return v.Breakers, err
}

// SetBreaker holds an origin's circuit breaker, or leaves it to itself when spec is nil. The node waits up to wait for the
// others (0: its own default).
func (c *Client) SetBreaker(ctx context.Context, origin string, spec *BreakerSpec, wait time.Duration) (BreakerResult, error) {
	method, body := http.MethodDelete, any(nil)
	if spec != nil {
		method, body = http.MethodPut, spec
	}
	return send[BreakerResult](ctx, c, method, "/v1/origins/"+url.PathEscape(origin)+"/breaker", waitQuery(wait), body)
}
