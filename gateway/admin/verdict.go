package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// Verdict is what a node finds of a region, or of a service there, and acts by.
type Verdict struct {
	Region   string    `json:"region" doc:"The region."`
	Service  string    `json:"service,omitempty" doc:"The service; absent: the region as such."`
	State    string    `json:"state" doc:"What the node acts by." enum:"up,unknown,draining,down"`
	Since    time.Time `json:"since" doc:"When it became so."`
	Seen     string    `json:"seen" doc:"What is seen at this moment." enum:"up,unknown,draining,down"`
	Evidence string    `json:"evidence" doc:"Who saw what; for a state that is kept or forced, why."`
	At       time.Time `json:"at" doc:"When the evidence was last looked at."`
	Kept     bool      `json:"kept" doc:"It is not what is seen: its return is waited out, or this node distrusts itself."`
	Forced   bool      `json:"forced" doc:"An operator forces it."`

	Sightings List[Sighting] `json:"sightings" doc:"What observers in other regions see at the front door of the service there; empty for a region as such."`
}

// Sighting is one observer's word on another region's front door.
type Sighting struct {
	Observer string    `json:"observer" doc:"The node that looked."`
	Region   string    `json:"region" doc:"Its region."`
	Saw      string    `json:"saw" doc:"What it saw." enum:"up,down"`
	Since    time.Time `json:"since" doc:"Since when, by the observer's clock."`
	Detail   string    `json:"detail,omitempty" doc:"Why it is down."`
}

// Force is an operator's word on a region or a service there, which stands above what is seen until it expires.
type Force struct {
	Region  string    `json:"region" doc:"The region."`
	Service string    `json:"service,omitempty" doc:"The service; absent: the region and every service there."`
	State   string    `json:"state" doc:"The forced state." enum:"up,down"`
	Reason  string    `json:"reason" doc:"Why, as the operator wrote."`
	By      string    `json:"by" doc:"Who set it: the name of a token, or loopback."`
	Expires time.Time `json:"expires" doc:"When it ends by itself."`
}

// ForceSpec is how an operator wants a state forced.
type ForceSpec struct {
	State  string   `json:"state" doc:"The state to force." enum:"up,down"`
	For    Duration `json:"for" doc:"How long, from 1s to 7d: a force always ends by itself."`
	Reason string   `json:"reason" doc:"Why, for the others: 1 to 512 bytes without control characters."`
}

// ForceResult is what a change of a force came to. It is durable on the answering node in any case.
type ForceResult struct {
	Region  string       `json:"region" doc:"The region."`
	Service string       `json:"service,omitempty" doc:"The service; absent: the region and every service there."`
	Force   *Force       `json:"force,omitempty" doc:"The force now in effect; absent after it was lifted."`
	Applied List[string] `json:"applied" doc:"Nodes that know of it."`
	Missing List[string] `json:"missing" doc:"Nodes that have not answered yet."`
}

// Verdicts are found by the node, and forced by operators.
type Verdicts interface {
	// Verdicts are all, by region and service, the region's own first.
	Verdicts() []Verdict
	// Forces are those in effect.
	Forces() []Force
	// SetForce forces a state of a known region, or of a known service there, or lifts it when spec is nil; lifting one
	// that does not exist is no error. The context's end bounds the wait for other nodes, not the change itself.
	SetForce(ctx context.Context, region, service string, spec *ForceSpec, by string) (ForceResult, error)
}

type verdictList struct {
	Verdicts List[Verdict] `json:"verdicts" doc:"By region and service, the region's own first."`
	Forces   List[Force]   `json:"forces" doc:"What operators force."`
}

const forceNeeds = "a forced state needs all of state (up or down), for (1s to 7d) and reason"

const maxForce = 7 * 24 * time.Hour

// verdictOperations are the routes of verdicts.
func (a *API) verdictOperations() []operation {
	service := parameter{name: "service", kind: "string", example: "shop", doc: "A service; absent: the region as such, and every service there."}
	change := func(method, id, summary string) operation {
		o := operation{method: method, path: "/v1/regions/{region}/verdict", id: id, summary: summary, scope: scopeDrain,
			result: ForceResult{}, query: []parameter{service, timeoutParameter}, handle: a.setForce}
		if method == http.MethodPut {
			o.body = ForceSpec{}
		}
		return o
	}
	return []operation{
		get("/v1/verdicts", "listVerdicts", "What this node finds of each region and service, and why", verdictList{}, func(*call) (any, error) {
			return verdictList{a.backend.Verdicts(), a.backend.Forces()}, nil
		}),
		change(http.MethodPut, "forceVerdict", "Force a region's state, whatever is seen, for a time"),
		change(http.MethodDelete, "liftVerdict", "Lift a forced state"),
	}
}

func (a *API) setForce(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	region, service := c.PathValue("region"), c.URL.Query().Get("service")
	if err := a.checkDrainTarget(DrainTarget{Kind: DrainRegion, Name: region}, true); err != nil {
		return 0, nil, err
	}
	if err := a.checkService(service); err != nil {
		return 0, nil, err
	}
	var spec *ForceSpec
	if c.Method == http.MethodPut {
		decoded, err := decodeForce(c.body)
		if err != nil {
			return 0, nil, err
		}
		spec = &decoded
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetForce(ctx, region, service, spec, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

func (a *API) checkService(name string) error {
	var known []string
	for _, s := range a.backend.Services() {
		if known = append(known, s.Name); s.Name == name {
			return nil
		}
	}
	if name == "" {
		return nil
	}
	return NotFound("service", name, known)
}

func decodeForce(data []byte) (ForceSpec, error) {
	var spec ForceSpec
	if data == nil {
		return spec, invalidBody(forceNeeds)
	}
	err := decodeObject(data, []field{
		stringField("state", func(s string) error {
			if spec.State = s; s != "up" && s != "down" {
				return errors.New("give up or down")
			}
			return nil
		}),
		durationField("for", time.Second, maxForce, "1s to 7d", &spec.For),
		stringField("reason", func(s string) error {
			if spec.Reason = s; s == "" || len(s) > maxReason || strings.ContainsFunc(s, unicode.IsControl) {
				return fmt.Errorf("give 1 to %d bytes without control characters", maxReason)
			}
			return nil
		}),
	}, nil)
	if err == nil && (spec.State == "" || spec.For == 0 || spec.Reason == "") {
		err = invalidBody(forceNeeds)
	}
	return spec, err
}

// Verdicts are what the node finds of each region and service, and what operators force.
func (c *Client) Verdicts(ctx context.Context) ([]Verdict, []Force, error) {
	v, err := fetch[verdictList](ctx, c, "/v1/verdicts", nil)
	return v.Verdicts, v.Forces, err
}

// Force forces a state of a region, or of a service there, or lifts it when spec is nil.
func (c *Client) Force(ctx context.Context, region, service string, spec *ForceSpec) (ForceResult, error) {
	query := url.Values{}
	if service != "" {
		query.Set("service", service)
	}
	path := "/v1/regions/" + url.PathEscape(region) + "/verdict"
	if spec == nil {
		return send[ForceResult](ctx, c, http.MethodDelete, path, query, nil)
	}
	return send[ForceResult](ctx, c, http.MethodPut, path, query, *spec)
}
