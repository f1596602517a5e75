package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// maxWeight is the largest weight, as in the config.
const maxWeight = 1000

// WeightSpec is how an operator wants a service weighted in a region.
type WeightSpec struct {
	Weight int  `json:"weight" doc:"Share of the clients among regions that are equally far, 0 to 1000; 0: only when no other region is left."`
	Force  bool `json:"force,omitempty" doc:"Set it even if what remains can not carry the load."`
}

// Weight is a weight set at run time.
type Weight struct {
	Service string    `json:"service" doc:"The service."`
	Region  string    `json:"region" doc:"The region."`
	Weight  int       `json:"weight" doc:"Its weight there, in place of the config's."`
	By      string    `json:"by" doc:"Who set it: the name of a token, or loopback."`
	Since   time.Time `json:"since" doc:"When it was set."`
}

// WeightResult is what a change of a weight came to. It is durable on the answering node in any case.
type WeightResult struct {
	Service string       `json:"service" doc:"The service."`
	Region  string       `json:"region" doc:"The region."`
	Weight  int          `json:"weight" doc:"The weight that holds now."`
	Set     bool         `json:"set" doc:"It was set at run time; else it is the config's."`
	Applied List[string] `json:"applied" doc:"Nodes that know of it."`
	Missing List[string] `json:"missing" doc:"Nodes that have not answered yet."`
}

func (a *API) setWeight(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	service, region := c.PathValue("service"), c.PathValue("region")
	var known []string
	found := false
	for _, s := range a.backend.Services() {
		for _, r := range s.Regions {
			known = append(known, s.Name+"/"+r.Region)
			found = found || s.Name == service && r.Region == region
		}
	}
	if !found {
		return 0, nil, NotFound("service in a region", service+"/"+region, known)
	}
	var spec *WeightSpec
	if c.Method == http.MethodPut {
		decoded, err := decodeWeight(c.body)
		if err != nil {
			return 0, nil, err
		}
		spec = &decoded
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetWeight(ctx, service, region, spec, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

func decodeWeight(data []byte) (WeightSpec, error) {
	var spec WeightSpec
	given := false
	if data != nil {
		err := decodeObject(data, []field{
			{"weight", func(raw json.RawMessage) []FieldError {
				given = true
				if err := json.Unmarshal(raw, &spec.Weight); err != nil || spec.Weight < 0 || spec.Weight > maxWeight {
					return []FieldError{{"weight", fmt.Sprintf("give a whole number from 0 to %d", maxWeight)}}
				}
				return nil
			}},
			boolField("force", &spec.Force),
		}, nil)
		if err != nil {
			return spec, err
		}
	}
	if !given {
		return spec, Invalid("weight", "is missing: give a whole number from 0 to 1000")
	}
	return spec, nil
}

// Weights are the weights set at run time.
func (c *Client) Weights(ctx context.Context) ([]Weight, error) {
	v, err := fetch[weightList](ctx, c, "/v1/weights", nil)
	return v.Weights, err
}

// SetWeight sets a service's weight in a region; nil lets the config's hold again. The node waits up to wait for the
// others (0: its own default).
func (c *Client) SetWeight(ctx context.Context, service, region string, spec *WeightSpec, wait time.Duration) (WeightResult, error) {
	path := "/v1/weights/" + url.PathEscape(service) + "/" + url.PathEscape(region)
	if spec == nil {
		return send[WeightResult](ctx, c, http.MethodDelete, path, waitQuery(wait), nil)
	}
	return send[WeightResult](ctx, c, http.MethodPut, path, waitQuery(wait), spec)
}
