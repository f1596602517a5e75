package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Breakers are opened and closed by operators, on every node.
type Breakers interface {
	// BreakerOrders are those in force, origins' first, sorted by name.
	BreakerOrders() []BreakerOrder
	// SetBreaker holds circuit breakers open or closed, or leaves them to themselves when spec is nil.
	SetBreaker(ctx context.Context, target BreakerTarget, spec *BreakerSpec, by string) (BreakerResult, error)
}

// BreakerTarget is whose circuit breakers are meant: those of an origin, wherever it is one, or that of a whole pool.
type BreakerTarget struct {
	Origin string `json:"origin,omitempty" doc:"URL or host:port of the origin; absent for a pool's."`
	Pool   string `json:"pool,omitempty" doc:"Service and region of the pool, as SERVICE/REGION; absent for an origin's."`
}

// String is the target's name, for people.
func (t BreakerTarget) String() string {
	if t.Pool != "" {
		return "pool " + t.Pool
	}
	return t.Origin
}

// BreakerSpec is how an operator wants a circuit breaker.
type BreakerSpec struct {
	State  string   `json:"state" doc:"open: no request goes there (of a whole pool: other regions serve); closed: every request does, whatever comes back." enum:"open,closed"`
	For    Duration `json:"for,omitzero" doc:"Leave it to itself again after this long, from 1s to 365d; absent: until it is told so."`
	Reason string   `json:"reason,omitempty" doc:"Why, for the others: at most 512 bytes without control characters."`
}

// BreakerOrder is an operator's word on a circuit breaker.
type BreakerOrder struct {
	BreakerTarget
	State   string    `json:"state" doc:"What its breakers are held at." enum:"open,closed"`
	Reason  string    `json:"reason,omitempty" doc:"Why, as the operator wrote."`
	By      string    `json:"by" doc:"Who set it: the name of a token, or loopback."`
	Since   time.Time `json:"since" doc:"When it was set."`
	Expires time.Time `json:"expires,omitzero" doc:"When it ends by itself; absent: never."`
}

// BreakerResult is what a change of a breaker came to.
type BreakerResult struct {
	BreakerTarget
	Changed bool          `json:"changed" doc:"Something else held before."`
	Order   *BreakerOrder `json:"order,omitempty" doc:"The order now in force; absent when the breaker is left to itself."`
	Applied List[string]  `json:"applied" doc:"Nodes that know of it."`
	Missing List[string]  `json:"missing" doc:"Nodes that have not answered yet."`
}

type breakerList struct {
	Breakers List[BreakerOrder] `json:"breakers" doc:"The orders in force, origins' first, sorted by name."`
}

const (
	originBreaker = "/v1/origins/{origin}/breaker"
	poolBreaker   = "/v1/services/{service}/regions/{region}/breaker"
)

func (a *API) breakerOperations() []operation {
	set := func(method, path, id, summary string) operation {
		o := operation{method: method, path: path, id: id, summary: summary, scope: scopeDrain, result: BreakerResult{},
			query: []parameter{timeoutParameter}, handle: a.setBreaker}
		if method == http.MethodPut {
			o.body = BreakerSpec{}
		}
		return o
	}
	return []operation{
		set(http.MethodPut, originBreaker, "setBreaker", "Hold an origin's circuit breaker open or closed on every node"),
		set(http.MethodDelete, originBreaker, "resetBreaker", "Leave an origin's circuit breaker to itself"),
		set(http.MethodPut, poolBreaker, "setPoolBreaker", "Hold the circuit breaker of a whole pool open or closed on every node of its region"),
		set(http.MethodDelete, poolBreaker, "resetPoolBreaker", "Leave the circuit breaker of a whole pool to itself"),
	}
}

func (a *API) setBreaker(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	target, known := BreakerTarget{Origin: c.PathValue(DrainOrigin)}, DrainTarget{Kind: DrainOrigin, Name: c.PathValue(DrainOrigin)}
	if target.Origin == "" {
		target.Pool = c.PathValue(DrainService) + "/" + c.PathValue("region")
		known = DrainTarget{Kind: DrainService, Name: target.Pool}
	}
	var spec *BreakerSpec
	if c.Method == http.MethodPut {
		if err := a.checkDrainTarget(known, true); err != nil {
			return 0, nil, err
		}
		if spec, err = decodeBreaker(c.body); err != nil {
			return 0, nil, err
		}
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetBreaker(ctx, target, spec, c.by)
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
		durationField("for", minDrain, maxDrain, "1s to 365d", &spec.For),
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

// SetBreaker holds a circuit breaker, or leaves it to itself when spec is nil. The node waits up to wait for the others (0:
// its own default).
func (c *Client) SetBreaker(ctx context.Context, target BreakerTarget, spec *BreakerSpec, wait time.Duration) (BreakerResult, error) {
	method, body := http.MethodDelete, any(nil)
	if spec != nil {
		method, body = http.MethodPut, spec
	}
	path := "/v1/origins/" + url.PathEscape(target.Origin) + "/breaker"
	if service, region, ok := strings.Cut(target.Pool, "/"); ok {
		path = "/v1/services/" + url.PathEscape(service) + "/regions/" + url.PathEscape(region) + "/breaker"
	}
	return send[BreakerResult](ctx, c, method, path, waitQuery(wait), body)
}
