package admin

import (
	"context"
	"net/http"
	"testing"
)

func (f *fakeBackend) Homes() []ServiceHomes {
	return []ServiceHomes{{Service: "shop", Ring: []string{"eu-west", "us-east"}, Next: []string{"ap-south", "eu-west", "us-east"}, Share: 0.25,
		Moving: &Move{To: 0.5, Since: noon(), Over: Duration(600e9), By: "deploy", Reason: "room"},
		Movers: []HomeMover{{From: "eu-west", To: "ap-south", Share: 0.2, Moved: 0.05}}, Pins: 1, Known: 7}}
}

func (f *fakeBackend) HomeOf(_ context.Context, service, user string) (UserHome, error) {
	if user == "lost" {
		return UserHome{}, Unavailable("the lookup service does not answer")
	}
	return UserHome{Service: service, User: user, Region: "ap-south", Why: "moved", Old: "eu-west", Then: []string{"us-east"}, Wait: Duration(5e8)}, nil
}

func (f *fakeBackend) SetMove(_ context.Context, service string, spec *MoveSpec, by string) (MoveResult, error) {
	r := MoveResult{Service: service, Applied: []string{"eu-1"}}
	if spec != nil {
		r.Move = &Move{To: spec.Share, Over: spec.Over, By: by, Reason: spec.Reason, Since: noon()}
	}
	return r, nil
}

func (f *fakeBackend) Pins() []Pin {
	return []Pin{{Service: "shop", User: "u/1", Region: "eu-west", Reason: "auditor", By: "loopback", Since: noon(), Expires: noon()}}
}

func (f *fakeBackend) SetPin(_ context.Context, service, user string, spec *PinSpec, by string) (PinResult, error) {
	r := PinResult{Service: service, User: user, Applied: []string{"eu-1"}}
	if spec != nil {
		r.Pin = &Pin{Service: service, User: user, Region: spec.Region, By: by, Reason: spec.Reason, Since: noon()}
	}
	return r, nil
}

// homeRequests are one request for each answer of the operations on homes.
var homeRequests = []struct {
	name   string
	q      request
	status int
}{
	{"list", request{line: "GET /v1/homes"}, http.StatusOK},
	{"a user", request{line: "GET /v1/homes/shop/users/u%2F1"}, http.StatusOK},
	{"a user of an unknown service", request{line: "GET /v1/homes/none/users/u1"}, http.StatusNotFound},
	{"a user whose home is not known", request{line: "GET /v1/homes/shop/users/lost"}, http.StatusServiceUnavailable},
	{"move", request{line: "PUT /v1/homes/shop/move", body: `{"share":0.5,"over":"10m","reason":"room"}`}, http.StatusOK},
	{"move at once", request{line: "PUT /v1/homes/shop/move", body: `{"share":1}`}, http.StatusOK},
	{"move nobody knows how far", request{line: "PUT /v1/homes/shop/move", body: `{"over":"10m"}`}, http.StatusBadRequest},
	{"move too far", request{line: "PUT /v1/homes/shop/move", body: `{"share":1.5}`}, http.StatusBadRequest},
	{"move too slowly", request{line: "PUT /v1/homes/shop/move", body: `{"share":1,"over":"400d"}`}, http.StatusBadRequest},
	{"move without a body", request{line: "PUT /v1/homes/shop/move"}, http.StatusBadRequest},
	{"end", request{line: "DELETE /v1/homes/shop/move"}, http.StatusOK},
	{"end of an unknown service", request{line: "DELETE /v1/homes/none/move"}, http.StatusNotFound},
	{"pins", request{line: "GET /v1/pins"}, http.StatusOK},
	{"pin", request{line: "PUT /v1/homes/shop/pins/u%2F1", body: `{"region":"eu-west","for":"1h","reason":"auditor"}`}, http.StatusOK},
	{"pin to nowhere", request{line: "PUT /v1/homes/shop/pins/u1", body: `{"region":"mars"}`}, http.StatusNotFound},
	{"pin without a region", request{line: "PUT /v1/homes/shop/pins/u1", body: `{}`}, http.StatusBadRequest},
	{"pin for no time", request{line: "PUT /v1/homes/shop/pins/u1", body: `{"region":"eu-west","for":"1ms"}`}, http.StatusBadRequest},
	{"unpin", request{line: "DELETE /v1/homes/shop/pins/u1"}, http.StatusOK},
}

func TestHomes(t *testing.T) {
	s := serve(t, &fakeBackend{}, nil)
	for _, tt := range homeRequests {
		if resp, body := s.do(t, tt.q); resp.StatusCode != tt.status {
			t.Errorf("%s: %d, want %d: %s", tt.name, resp.StatusCode, tt.status, body)
		}
	}
}
