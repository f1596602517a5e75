package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// Flags are turned by operators at run time.
type Flags interface {
	// Flags are those of the config, sorted by name.
	Flags() []Flag
	// SetFlag sets a known flag's weight on every node, or lets the config's hold again when spec is nil.
	SetFlag(ctx context.Context, name string, spec *FlagSpec, by string) (FlagResult, error)
}

// FlagSpec is how an operator wants a flag.
type FlagSpec struct {
	Weight float64 `json:"weight" doc:"Percent of the clients that it is on for, 0 to 100."`
}

// Flag is a switch that routes depend on.
type Flag struct {
	Name   string    `json:"name" doc:"Its name."`
	Weight float64   `json:"weight" doc:"Percent of the clients that it is on for now."`
	Config float64   `json:"config" doc:"What the config says."`
	By     string    `json:"by" doc:"What it is the same for: client, header:NAME or cookie:NAME."`
	SetBy  string    `json:"set_by,omitempty" doc:"Who set it at run time: the name of a token, or loopback; absent: nobody."`
	Since  time.Time `json:"since,omitzero" doc:"When it was set."`
}

// FlagResult is what a change of a flag came to. It is durable on the answering node in any case.
type FlagResult struct {
	Flag    Flag         `json:"flag" doc:"The flag as it holds now."`
	Applied List[string] `json:"applied" doc:"Nodes that know of it."`
	Missing List[string] `json:"missing" doc:"Nodes that have not answered yet."`
}

type flagList struct {
	Flags List[Flag] `json:"flags" doc:"The flags of the config, sorted by name."`
}

func (a *API) flagOperations() []operation {
	set := func(method, id, summary string) operation {
		o := operation{method: method, path: "/v1/flags/{flag}", id: id, summary: summary, scope: scopeDrain, result: FlagResult{},
			query: []parameter{timeoutParameter}, handle: a.setFlag}
		if method == http.MethodPut {
			o.body = FlagSpec{}
		}
		return o
	}
	return []operation{
		get("/v1/flags", "listFlags", "The flags and whom they are on for", flagList{}, func(*call) (any, error) { return flagList{a.backend.Flags()}, nil }),
		set(http.MethodPut, "setFlag", "Set a flag's weight on every node, in place of the config's"),
		set(http.MethodDelete, "resetFlag", "Let the config's weight of a flag hold again"),
	}
}

func (a *API) setFlag(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	name, found := c.PathValue("flag"), false
	var known []string
	for _, f := range a.backend.Flags() {
		known = append(known, f.Name)
		found = found || f.Name == name
	}
	if !found {
		return 0, nil, NotFound("flag", name, known)
	}
	var spec *FlagSpec
	if c.Method == http.MethodPut {
		var decoded FlagSpec
		if err := decodePercent(c.body, &decoded.Weight); err != nil {
			return 0, nil, err
		}
		spec = &decoded
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetFlag(ctx, name, spec, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

// decodePercent reads a body with a weight, and what else is in more.
func decodePercent(data []byte, weight *float64, more ...field) error {
	const needs = "is missing: give a number from 0 to 100"
	given := false
	if data != nil {
		err := decodeObject(data, append([]field{{"weight", func(raw json.RawMessage) []FieldError {
			given = true
			if err := json.Unmarshal(raw, weight); err != nil || !(*weight >= 0 && *weight <= 100) {
				return []FieldError{{"weight", "give a number from 0 to 100: percent of the clients"}}
			}
			return nil
		}}}, more...), nil)
		if err != nil {
			return err
		}
	}
	if !given {
		return Invalid("weight", needs)
	}
	return nil
}

// Flags are the flags of the fleet.
func (c *Client) Flags(ctx context.Context) ([]Flag, error) {
	v, err := fetch[flagList](ctx, c, "/v1/flags", nil)
	return v.Flags, err
}

// SetFlag sets a flag's weight; nil lets the config's hold again. The node waits up to wait for the others (0: its own
// default).
func (c *Client) SetFlag(ctx context.Context, name string, spec *FlagSpec, wait time.Duration) (FlagResult, error) {
	method, body := http.MethodDelete, any(nil)
	if spec != nil {
		method, body = http.MethodPut, spec
	}
	return send[FlagResult](ctx, c, method, "/v1/flags/"+url.PathEscape(name), waitQuery(wait), body)
}
