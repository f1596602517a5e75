package admin

import "context"

func (f *fakeBackend) Keys() KeyStatus {
	return KeyStatus{Step: "add", Key: "0a1b2c3d", By: "deploy", Since: noon(), Waiting: []KeyWait{{"us-1", "it does not hold the key yet"}},
		Nodes: []NodeKeys{{Node: "eu-1", Region: "eu-west", Keys: []string{"ffeeddcc", "0a1b2c3d"}, Kept: true}, {Node: "us-1", Region: "us-east"}}}
}

func (f *fakeBackend) RotateKey(_ context.Context, change KeyChange, by string) (KeyStatus, error) {
	s := f.Keys()
	if change.Step == "remove" && !change.Force {
		return s, Refused("the step remove follows use")
	}
	s.Step, s.By = change.Step, by
	return s, nil
}
