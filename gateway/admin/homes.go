package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Homes are the regions where users' data lives, which operators move and pin.
type Homes interface {
	// Homes are those of every service that has an affinity, sorted by service.
	Homes() []ServiceHomes
	// HomeOf tells where one user's data lives. The service has an affinity.
	HomeOf(ctx context.Context, service, user string) (UserHome, error)
	// SetMove says how far a service's users move to the next ring; nil ends all movement and leaves everybody at home.
	SetMove(ctx context.Context, service string, spec *MoveSpec, by string) (MoveResult, error)
	// Pins are those in force, sorted by service and user.
	Pins() []Pin
	// SetPin keeps a user in a region, or lets the user go when spec is nil.
	SetPin(ctx context.Context, service, user string, spec *PinSpec, by string) (PinResult, error)
}

// ServiceHomes is how a service's users are spread, and how far they have moved.
type ServiceHomes struct {
	Service string          `json:"service" doc:"The service."`
	Ring    List[string]    `json:"ring" doc:"Regions of the hash ring."`
	Next    List[string]    `json:"next" doc:"Regions of the ring that users are moved to; empty: nobody moves."`
	Share   float64         `json:"share" doc:"Share of the users that change homes who have moved by now, 0 to 1."`
	Moving  *Move           `json:"moving,omitempty" doc:"What operators want; absent: nobody has moved."`
	Movers  List[HomeMover] `json:"movers" doc:"How many users change homes between the two rings, all told, as shares of all users."`
	Pins    int             `json:"pins" doc:"Users that operators keep in a region."`
	Known   int             `json:"known,omitempty" doc:"Users in this node's memory of the lookup service's answers."`
}

// HomeMover is a stream of users between two regions.
type HomeMover struct {
	From  string  `json:"from" doc:"Where they lived."`
	To    string  `json:"to" doc:"Where they will."`
	Share float64 `json:"share" doc:"As a share of all users, 0 to 1."`
	Moved float64 `json:"moved" doc:"The part of all users that has made this move by now."`
}

// Move is how far users move to the next ring.
type Move struct {
	From   float64   `json:"from" doc:"Share that had moved when it was set."`
	To     float64   `json:"to" doc:"Share that will have moved."`
	Since  time.Time `json:"since" doc:"When it begins."`
	Over   Duration  `json:"over,omitzero" doc:"How long it takes, in a share that grows evenly; absent: at once."`
	By     string    `json:"by" doc:"Who set it: the name of a token, or loopback."`
	Reason string    `json:"reason,omitempty" doc:"Why, as the operator wrote."`
}

// MoveSpec is how far an operator wants users to move.
type MoveSpec struct {
	Share  float64  `json:"share" doc:"Share of the users that change homes who are to have moved, 0 to 1; less than now moves some back."`
	Over   Duration `json:"over,omitzero" doc:"How long it is to take, 1s to 7d; absent: at once."`
	Reason string   `json:"reason,omitempty" doc:"Why, for the others: at most 512 bytes without control characters."`
}

// MoveResult is what a change of a migration came to.
type MoveResult struct {
	Service string       `json:"service" doc:"The service."`
	Move    *Move        `json:"move,omitempty" doc:"What is in force now; absent: everybody is at home."`
	Applied List[string] `json:"applied" doc:"Nodes that know of it."`
	Missing List[string] `json:"missing" doc:"Nodes that have not answered yet."`
}

// UserHome is where one user's data lives.
type UserHome struct {
	Service string       `json:"service" doc:"The service."`
	User    string       `json:"user" doc:"The user's key."`
	Region  string       `json:"region" doc:"Where the user's data lives."`
	Why     string       `json:"why" doc:"What says so: the hash ring, the ring that users move to, an operator's pin, or the lookup service." enum:"ring,moved,pinned,lookup"`
	Old     string       `json:"old,omitempty" doc:"The home before, still read for what the new one has not; absent: none."`
	Then    List[string] `json:"then" doc:"Where requests go while it can't be reached, in order."`
	Wait    Duration     `json:"wait,omitzero" doc:"How long a write waits for the user's move to be over; absent: none is under way."`
}

// Pin keeps a user in a region.
type Pin struct {
	Service string    `json:"service" doc:"The service."`
	User    string    `json:"user" doc:"The user's key."`
	Region  string    `json:"region" doc:"Where the user is kept."`
	Reason  string    `json:"reason,omitempty" doc:"Why, as the operator wrote."`
	By      string    `json:"by" doc:"Who set it: the name of a token, or loopback."`
	Since   time.Time `json:"since" doc:"When it was set."`
	Expires time.Time `json:"expires,omitzero" doc:"When it ends by itself; absent: never."`
}

// PinSpec is where an operator wants a user.
type PinSpec struct {
	Region string   `json:"region" doc:"A region in which the service has a pool."`
	For    Duration `json:"for,omitzero" doc:"Let the user go after this long, from 1s to 365d; absent: until it is unpinned."`
	Reason string   `json:"reason,omitempty" doc:"Why, for the others: at most 512 bytes without control characters."`
}

// PinResult is what a change of a pin came to.
type PinResult struct {
	Service string       `json:"service" doc:"The service."`
	User    string       `json:"user" doc:"The user's key."`
	Pin     *Pin         `json:"pin,omitempty" doc:"The pin now in force; absent: the user is let go."`
	Applied List[string] `json:"applied" doc:"Nodes that know of it."`
	Missing List[string] `json:"missing" doc:"Nodes that have not answered yet."`
}

type (
	homeList struct {
		Homes List[ServiceHomes] `json:"homes" doc:"The services whose users have homes, sorted by name."`
	}
	pinList struct {
		Pins List[Pin] `json:"pins" doc:"The pins in force, sorted by service and user."`
	}
)

const maxMoveOver = 7 * 24 * time.Hour

func (a *API) homeOperations() []operation {
	change := func(method, path, id, summary string, result any, handle func(http.ResponseWriter, *call) (int, any, error)) operation {
		return operation{method: method, path: path, id: id, summary: summary, scope: scopeDrain, result: result,
			query: []parameter{timeoutParameter}, errors: []int{http.StatusNotFound, http.StatusConflict}, handle: handle}
	}
	const move, pin = "/v1/homes/{service}/move", "/v1/homes/{service}/pins/{user}"
	setMove := change(http.MethodPut, move, "moveUsers", "Move users to the next hash ring, as far as said", MoveResult{}, a.setMove)
	setMove.body = MoveSpec{}
	setPin := change(http.MethodPut, pin, "pinUser", "Keep a user in a region", PinResult{}, a.setPin)
	setPin.body = PinSpec{}
	getHome := get("/v1/homes/{service}/users/{user}", "getHome", "Where one user's data lives", UserHome{}, func(c *call) (any, error) {
		if _, err := a.homesOf(c.PathValue("service")); err != nil {
			return nil, err
		}
		return a.backend.HomeOf(c.Context(), c.PathValue("service"), c.PathValue("user"))
	})
	getHome.errors = append(getHome.errors, http.StatusServiceUnavailable) // the lookup service fails
	return []operation{
		get("/v1/homes", "listHomes", "Where users' data lives, and how far they have moved", homeList{}, func(*call) (any, error) {
			return homeList{a.backend.Homes()}, nil
		}),
		getHome,
		get("/v1/pins", "listPins", "Users that operators keep in a region", pinList{}, func(*call) (any, error) { return pinList{a.backend.Pins()}, nil }),
		setMove, change(http.MethodDelete, move, "endMove", "End a migration: everybody is at home in the first ring", MoveResult{}, a.setMove),
		setPin, change(http.MethodDelete, pin, "unpinUser", "Let a user go", PinResult{}, a.setPin),
	}
}

// homesOf finds a service that has an affinity.
func (a *API) homesOf(service string) (ServiceHomes, error) {
	var known []string
	for _, h := range a.backend.Homes() {
		if h.Service == service {
			return h, nil
		}
		known = append(known, h.Service)
	}
	return ServiceHomes{}, NotFound("service with an affinity", service, known)
}

func (a *API) setMove(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	homes, err := a.homesOf(c.PathValue("service"))
	if err != nil {
		return 0, nil, err
	}
	var spec *MoveSpec
	if c.Method == http.MethodPut {
		if len(homes.Next) == 0 {
			return 0, nil, Refused("the config names no ring that users of " + homes.Service + " could move to: give affinity.next first")
		}
		if spec, err = decodeMove(c.body); err != nil {
			return 0, nil, err
		}
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetMove(ctx, homes.Service, spec, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

func decodeMove(data []byte) (*MoveSpec, error) {
	var spec MoveSpec
	given := false
	if data == nil {
		return nil, invalidBody(`the body is missing; send {"share": 0.25, "over": "10m"}`)
	}
	err := decodeObject(data, []field{
		{"share", func(raw json.RawMessage) []FieldError {
			given = true
			if err := json.Unmarshal(raw, &spec.Share); err != nil || spec.Share < 0 || spec.Share > 1 {
				return []FieldError{{"share", "give a number from 0 to 1"}}
			}
			return nil
		}},
		durationField("over", minDrain, maxMoveOver, "1s to 7d, or leave it out to move at once", &spec.Over),
		reasonField(&spec.Reason),
	}, nil)
	if err == nil && !given {
		err = Invalid("share", "is missing; give a number from 0 to 1")
	}
	return &spec, err
}

// maxUser is the most bytes of a user that is pinned: its pin's register has room for no more.
const maxUser = 160

func (a *API) setPin(w http.ResponseWriter, c *call) (int, any, error) {
	wait, err := waitOf(c)
	if err != nil {
		return 0, nil, err
	}
	service, user := c.PathValue("service"), c.PathValue("user")
	if _, err := a.homesOf(service); err != nil {
		return 0, nil, err
	}
	if user == "" || len(user) > maxUser {
		return 0, nil, Invalid("user", fmt.Sprintf("must have 1 to %d bytes", maxUser))
	}
	var spec *PinSpec
	if c.Method == http.MethodPut {
		if spec, err = decodePin(c.body); err != nil {
			return 0, nil, err
		}
		if err := a.checkPlace(service, spec.Region); err != nil {
			return 0, nil, err
		}
	}
	ctx, cancel := waiting(w, c, wait)
	defer cancel()
	result, err := a.backend.SetPin(ctx, service, user, spec, c.by)
	if err != nil {
		return 0, nil, err
	}
	return changed(len(result.Missing)), result, nil
}

// checkPlace wants a region in which the service has a pool.
func (a *API) checkPlace(service, region string) error {
	var known []string
	for _, s := range a.backend.Services() {
		for _, r := range s.Regions {
			if s.Name == service {
				known = append(known, r.Region)
			}
			if s.Name == service && r.Region == region {
				return nil
			}
		}
	}
	return NotFound("region with a pool of "+service, region, known)
}

func decodePin(data []byte) (*PinSpec, error) {
	var spec PinSpec
	if data == nil {
		return nil, invalidBody(`the body is missing; send {"region": "eu-west"}`)
	}
	err := decodeObject(data, []field{
		stringField("region", func(s string) error { spec.Region = s; return nil }),
		durationField("for", minDrain, maxDrain, "1s to 365d", &spec.For),
		reasonField(&spec.Reason),
	}, nil)
	if err == nil && spec.Region == "" {
		err = Invalid("region", "is missing; give the region where the user is to be kept")
	}
	return &spec, err
}

// Homes are the services whose users have homes.
func (c *Client) Homes(ctx context.Context) ([]ServiceHomes, error) {
	v, err := fetch[homeList](ctx, c, "/v1/homes", nil)
	return v.Homes, err
}

// HomeOf is where one user's data lives.
func (c *Client) HomeOf(ctx context.Context, service, user string) (UserHome, error) {
	return fetch[UserHome](ctx, c, "/v1/homes/"+url.PathEscape(service)+"/users/"+url.PathEscape(user), nil)
}

// MoveUsers says how far a service's users move to the next ring; nil ends the migration. The node waits up to wait for
// the others (0: its own default).
func (c *Client) MoveUsers(ctx context.Context, service string, spec *MoveSpec, wait time.Duration) (MoveResult, error) {
	method, body := http.MethodDelete, any(nil)
	if spec != nil {
		method, body = http.MethodPut, spec
	}
	return send[MoveResult](ctx, c, method, "/v1/homes/"+url.PathEscape(service)+"/move", waitQuery(wait), body)
}

// Pins are the users that operators keep in a region.
func (c *Client) Pins(ctx context.Context) ([]Pin, error) {
	v, err := fetch[pinList](ctx, c, "/v1/pins", nil)
	return v.Pins, err
}

// PinUser keeps a user in a region, or lets the user go when spec is nil. The node waits up to wait for the others (0: its
// own default).
func (c *Client) PinUser(ctx context.Context, service, user string, spec *PinSpec, wait time.Duration) (PinResult, error) {
	method, body := http.MethodDelete, any(nil)
	if spec != nil {
		method, body = http.MethodPut, spec
	}
	return send[PinResult](ctx, c, method, "/v1/homes/"+url.PathEscape(service)+"/pins/"+url.PathEscape(user), waitQuery(wait), body)
}
