package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"
)

// Faults are made on purpose by operators, where the config allows it.
type Faults interface {
	// Faults are those in force, the config's too, sorted by id.
	Faults() []Fault
	// SetFault makes a fault on every node, or ends it when spec is nil; ending one that does not exist is no error. It is
	// a Refused where the config does not allow faults, and Invalid where the spec names what is not there.
	SetFault(ctx context.Context, id string, spec *FaultSpec, by string) (FaultResult, error)
}

// FaultSpec is a fault as an operator wants it.
type FaultSpec struct {
	Service  string   `json:"service,omitempty" doc:"Whose requests meet it; absent: every service's."`
	Route    string   `json:"route,omitempty" doc:"The path pattern of the routes that meet it; absent: all."`
	Origin   string   `json:"origin,omitempty" doc:"URL of the origin that seems to be at fault; absent: each of them."`
	Share    float64  `json:"share,omitempty" doc:"Percent of the attempts that meet it; absent: 100."`
	Delay    Duration `json:"delay,omitzero" doc:"How much later the origin is asked, at most 10m."`
	Abort    int      `json:"abort,omitempty" doc:"Status of an answer in the origin's place, 200 to 599."`
	Reset    bool     `json:"reset,omitempty" doc:"The connection breaks in place of an answer."`
	SlowBody int      `json:"slow_body,omitempty" doc:"Bytes of a response's body a second."`
	For      Duration `json:"for" doc:"It ends by itself after this long, 1s to 24h."`
	Reason   string   `json:"reason,omitempty" doc:"Why, for the others: at most 512 bytes without control characters."`
}

// Fault is trouble made on purpose.
type Fault struct {
	ID       string    `json:"id" doc:"Its name, which responses that met it carry in X-Landfall-Fault."`
	Service  string    `json:"service,omitempty" doc:"Whose requests meet it; absent: every service's."`
	Route    string    `json:"route,omitempty" doc:"The path pattern of the routes that meet it; absent: all."`
	Origin   string    `json:"origin,omitempty" doc:"The origin that seems to be at fault; absent: each of them."`
	Share    float64   `json:"share" doc:"Percent of the attempts that meet it."`
	Delay    Duration  `json:"delay,omitzero" doc:"How much later the origin is asked."`
	Abort    int       `json:"abort,omitempty" doc:"Status of an answer in the origin's place."`
	Reset    bool      `json:"reset,omitempty" doc:"The connection breaks in place of an answer."`
	SlowBody int       `json:"slow_body,omitempty" doc:"Bytes of a response's body a second."`
	Reason   string    `json:"reason,omitempty" doc:"Why, as the operator wrote."`
	By       string    `json:"by" doc:"Who made it: the name of a token, loopback, or config."`
	Since    time.Time `json:"since,omitzero" doc:"When; absent for the config's."`
	Expires  time.Time `json:"expires,omitzero" doc:"When it ends by itself; absent for the config's."`
}

// FaultResult is what a change of a fault came to. It is durable on the answering node in any case.
type FaultResult struct {
	ID      string       `json:"id" doc:"The fault."`
	Fault   *Fault       `json:"fault,omitempty" doc:"The fault in force; absent when it was ended."`
	Applied List[string] `json:"applied" doc:"Nodes that know of it."`
	Missing List[string] `json:"missing" doc:"Nodes that have not answered yet."`
}

type faultList struct {
	Faults List[Fault] `json:"faults" doc:"The faults in force, sorted by id."`
}

const (
	maxFault = 24 * time.Hour
	maxDelay = 10 * time.Minute
)

func (a *API) faultOperations() []operation {
	set := func(method, id, summary string) operation {
		o := operation{method: method, path: "/v1/faults/{id}", id: id, summary: summary, scope: scopeDrain, result: FaultResult{},
			query: []parameter{timeoutParameter}, errors: []int{http.StatusConflict}, handle: a.setFault}
		if method == http.MethodPut {
			o.body = FaultSpec{}
		}
		return o
	}
	return []operation{
		get("/v1/faults", "listFaults", "The faults made on purpose", faultList{}, func(*call) (any, error) { return faultList{a.backend.Faults()}, nil }),
		set(http.MethodPut, "setFault", "Make a fault on every node, for a time, where the config allows it"),
		set(http.MethodDelete, "endFault", "End a fault"),
	}
}

func (a *API) setFault(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	var spec *FaultSpec
	id := c.PathValue("id")
	if c.Method == http.MethodPut {
		if !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`).MatchString(id) {
			return 0, nil, Invalid("id", "use up to 63 of a-z, 0-9 and -, and no - at either end")
		}
		if spec, err = decodeFault(c.body); err != nil {
			return 0, nil, err
		}
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetFault(ctx, id, spec, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

func decodeFault(data []byte) (*FaultSpec, error) {
	spec := FaultSpec{Share: 100}
	if data == nil {
		return nil, invalidBody(`the body is missing; send for instance {"abort": 503, "share": 10, "for": "5m"}`)
	}
	text := func(name string, into *string) field {
		return stringField(name, func(s string) error {
			if *into = s; len(s) > 2048 {
				return fmt.Errorf("is longer than 2048 bytes")
			}
			return nil
		})
	}
	number := func(name string, least, most int, into *int) field {
		return field{name, func(raw json.RawMessage) []FieldError {
			if json.Unmarshal(raw, into) != nil || *into < least || *into > most {
				return []FieldError{{name, fmt.Sprintf("give a whole number from %d to %d", least, most)}}
			}
			return nil
		}}
	}
	err := decodeObject(data, []field{
		text("service", &spec.Service), text("route", &spec.Route), text("origin", &spec.Origin),
		{"share", func(raw json.RawMessage) []FieldError {
			if json.Unmarshal(raw, &spec.Share) != nil || !(spec.Share > 0 && spec.Share <= 100) {
				return []FieldError{{"share", "give a number above 0, up to 100: percent of the attempts"}}
			}
			return nil
		}},
		durationField("delay", time.Millisecond, maxDelay, "1ms to 10m", &spec.Delay), number("abort", 200, 599, &spec.Abort), boolField("reset", &spec.Reset),
		number("slow_body", 1, 1<<30, &spec.SlowBody), durationField("for", time.Second, maxFault, "1s to 24h", &spec.For), reasonField(&spec.Reason),
	}, nil)
	if err == nil && spec.For == 0 {
		err = Invalid("for", "is missing: a fault must end by itself; give 1s to 24h")
	}
	return &spec, err
}

// Faults are the faults in force.
func (c *Client) Faults(ctx context.Context) ([]Fault, error) {
	v, err := fetch[faultList](ctx, c, "/v1/faults", nil)
	return v.Faults, err
}

// SetFault makes a fault, or ends it when spec is nil. The node waits up to wait for the others (0: its own default).
func (c *Client) SetFault(ctx context.Context, id string, spec *FaultSpec, wait time.Duration) (FaultResult, error) {
	method, body := http.MethodDelete, any(nil)
	if spec != nil {
		method, body = http.MethodPut, spec
	}
	return send[FaultResult](ctx, c, method, "/v1/faults/"+url.PathEscape(id), waitQuery(wait), body)
}
