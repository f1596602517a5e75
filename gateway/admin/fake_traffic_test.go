package admin

import (
	"context"
	"time"
)

func (f *fakeBackend) Flags() []Flag {
	return []Flag{{Name: "new", Weight: 10, Config: 10, By: "cookie:uid", SetBy: "loopback", Since: noon()}}
}

func (f *fakeBackend) SetFlag(_ context.Context, name string, spec *FlagSpec, by string) (FlagResult, error) {
	r := FlagResult{Flag: f.Flags()[0], Applied: []string{"eu-1"}, Missing: []string{}}
	if spec != nil {
		r.Flag.Weight, r.Flag.SetBy = spec.Weight, by
	}
	return r, nil
}

func (f *fakeBackend) Canaries() []Canary {
	return []Canary{{
		Service: "shop", To: "v2", State: "stopped", Config: 5, Reason: "12% of its 100 requests in 1m failed", SetBy: "rollback", Node: "eu-1", Since: noon(),
		Window: Duration(time.Minute), Stable: CanarySide{Requests: 4000, Failed: 1, P99: 20.5}, Canary: CanarySide{Requests: 100, Failed: 12, P99: 21},
	}}
}

func (f *fakeBackend) SetCanary(_ context.Context, service, to string, spec *CanarySpec, by string) (CanaryResult, error) {
	r := CanaryResult{Canary: f.Canaries()[0], Applied: []string{"eu-1"}, Missing: []string{"us-1"}}
	if spec == nil {
		r.Canary.State = "configured"
	}
	return r, nil
}

func (f *fakeBackend) Faults() []Fault {
	return []Fault{{ID: "f1", Service: "shop", Share: 10, Abort: 503, Delay: Duration(time.Second), By: "loopback", Since: noon(), Expires: noon().Add(time.Minute)}}
}

func (f *fakeBackend) SetFault(_ context.Context, id string, spec *FaultSpec, by string) (FaultResult, error) {
	if id == "off" {
		return FaultResult{}, Refused("this fleet's config does not allow faults")
	}
	r := FaultResult{ID: id, Applied: []string{"eu-1"}, Missing: []string{}}
	if spec != nil {
		r.Fault = &f.Faults()[0]
	}
	return r, nil
}
