package admin

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// KeyStatus is how the rotation of the mesh key stands. Keys are named by fingerprints and never shown.
type KeyStatus struct {
	Step     string         `json:"step" doc:"The step that the fleet was told to take; none: it never rotated." enum:"none,add,use,remove,abort"`
	Finished bool           `json:"finished" doc:"The last step of the rotation is done on every node."`
	Key      string         `json:"key,omitempty" doc:"Fingerprint of the new key."`
	By       string         `json:"by,omitempty" doc:"Who ordered the step: the name of a token, or loopback."`
	Since    time.Time      `json:"since,omitzero" doc:"When."`
	Next     string         `json:"next,omitempty" doc:"The step that may follow now; absent while nodes are waited for, and at the end." enum:"use,remove"`
	Waiting  List[KeyWait]  `json:"waiting" doc:"Nodes that have not taken the step."`
	Nodes    List[NodeKeys] `json:"nodes" doc:"Which keys each node holds."`
}

// KeyWait is a node that has not taken a step of a rotation.
type KeyWait struct {
	Node string `json:"node" doc:"Its name."`
	Why  string `json:"why" doc:"What it lacks, in words."`
}

// NodeKeys are the mesh keys of a node.
type NodeKeys struct {
	Node   string       `json:"node" doc:"Its name."`
	Region string       `json:"region" doc:"Its region."`
	Keys   List[string] `json:"keys" doc:"Fingerprints, the key that encrypts first; empty when nothing recent is known."`
	Kept   bool         `json:"kept" doc:"It keeps rotated keys over a restart: it has a data folder."`
}

// KeyChange is a step of a rotation.
type KeyChange struct {
	Step  string `json:"step" doc:"add: every node gets a new key behind the present one. use: every node encrypts with it. remove: every node drops the others. abort: every node drops the new one, while the step is add." enum:"add,use,remove,abort"`
	Force bool   `json:"force,omitempty" doc:"Take the step although nodes have not taken the one before; those need the new key in mesh.key to come back."`
}

// Keys are the fleet's mesh keys.
type Keys interface {
	// Keys is how the rotation stands, as far as this node has heard.
	Keys() KeyStatus
	// RotateKey takes a step. One that is not due, or not safe and not forced, is a Refused.
	RotateKey(ctx context.Context, change KeyChange, by string) (KeyStatus, error)
}

func (a *API) keyOperations() []operation {
	return []operation{
		get("/v1/fleet/keys", "getKeys", "How the rotation of the mesh key stands", KeyStatus{}, func(*call) (any, error) { return a.backend.Keys(), nil }),
		{method: http.MethodPost, path: "/v1/fleet/keys", id: "rotateKey", summary: "Take a step of a rotation of the mesh key",
			scope: scopeFleet, query: []parameter{timeoutParameter}, body: KeyChange{}, result: KeyStatus{}, errors: []int{http.StatusConflict}, handle: a.rotateKey},
	}
}

func (a *API) rotateKey(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	var change KeyChange
	if c.body == nil {
		return 0, nil, invalidBody(`the body is missing; send {"step": "add"}, then use and remove`)
	}
	err = decodeObject(c.body, []field{
		stringField("step", func(s string) error {
			switch change.Step = s; s {
			case "add", "use", "remove", "abort":
				return nil
			}
			return errors.New("give add, use, remove or abort")
		}),
		boolField("force", &change.Force),
	}, nil)
	if err == nil && change.Step == "" {
		err = Invalid("step", "is missing; give add, use, remove or abort")
	}
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	status, err := a.backend.RotateKey(ctx, change, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(status.Waiting)), status, nil
}

// Keys is how the rotation of the mesh key stands.
func (c *Client) Keys(ctx context.Context) (KeyStatus, error) {
	return fetch[KeyStatus](ctx, c, "/v1/fleet/keys", nil)
}

// RotateKey takes a step of a rotation.
func (c *Client) RotateKey(ctx context.Context, change KeyChange) (KeyStatus, error) {
	return send[KeyStatus](ctx, c, http.MethodPost, "/v1/fleet/keys", nil, change)
}
