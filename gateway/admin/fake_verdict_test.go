package admin

import (
	"context"
	"testing"
)

func (f *fakeBackend) Verdicts() []Verdict {
	return []Verdict{{Region: "eu-west", State: "up", Seen: "up", Since: noon(), At: noon(), Evidence: "reached from us-east (us-1)"}}
}

func (f *fakeBackend) Forces() []Force { return nil }

func (f *fakeBackend) SetForce(_ context.Context, region, service string, spec *ForceSpec, by string) (ForceResult, error) {
	res := ForceResult{Region: region, Service: service, Applied: []string{"eu-1"}, Missing: []string{}}
	if spec != nil {
		res.Force = &Force{Region: region, Service: service, State: spec.State, Reason: spec.Reason, By: by, Expires: noon().Add(spec.For.D())}
	}
	return res, nil
}

func TestDecodeForce(t *testing.T) {
	good := `{"state": "down", "for": "10m", "reason": "cable works"}`
	if spec, err := decodeForce([]byte(good)); err != nil || spec.State != "down" || spec.Reason != "cable works" || spec.For.D().Minutes() != 10 {
		t.Errorf("%+v, %v", spec, err)
	}
	for name, body := range map[string]string{
		"nothing":     "",
		"no reason":   `{"state": "down", "for": "10m"}`,
		"no end":      `{"state": "down", "reason": "x"}`,
		"endless":     `{"state": "down", "for": "365d", "reason": "x"}`,
		"other state": `{"state": "draining", "for": "10m", "reason": "x"}`,
		"control":     `{"state": "up", "for": "10m", "reason": "a\nb"}`,
		"unknown key": `{"state": "up", "for": "10m", "reason": "x", "until": "never"}`,
	} {
		var raw []byte
		if body != "" {
			raw = []byte(body)
		}
		if _, err := decodeForce(raw); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
