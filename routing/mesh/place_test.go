package mesh

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"
)

func somePlace() *coordinate.Coordinate {
	return &coordinate.Coordinate{Vec: []float64{0.0123, -0.08, 0, 1, 0.0001, -0.00004, 0.25, 9.99}, Error: 0.173, Adjustment: -0.0021, Height: 0.0004}
}

func TestPlaceTravels(t *testing.T) {
	at := somePlace()
	got := placeIn(placeBody(at))
	if got == nil || math.Abs(got.At.Error-at.Error) > 0.005 {
		t.Fatalf("%+v", got)
	}
	for i, v := range append(got.At.Vec, got.At.Adjustment, got.At.Height) {
		if want := append(at.Vec, at.Adjustment, at.Height)[i]; math.Abs(v-want) > placeStep/2+1e-12 {
			t.Errorf("part %d: %g, want %g", i, v, want)
		}
	}
	other := &Coordinate{coordinate.NewCoordinate(coordinate.DefaultConfig())}
	if d, want := got.Estimate(other), at.DistanceTo(other.At); (d - want).Abs().Seconds() > 0.001 {
		t.Errorf("estimate %s, want %s", d, want)
	}
	if n := len(placeBody(at)); n > 40 {
		t.Errorf("a coordinate has %d bytes", n)
	}
}

func TestPlacesThatAreNone(t *testing.T) {
	numbers := func(all ...uint64) (b []byte) {
		for _, v := range all {
			b = binary.AppendUvarint(b, v)
		}
		return b
	}
	far := uint64(2*placeMost) + 2 // zigzag: one step beyond
	for name, body := range map[string][]byte{
		"empty":            nil,
		"fewer dimensions": numbers(2, 1, 1, 1, 1, 1),
		"more dimensions":  numbers(9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
		"cut short":        placeBody(somePlace())[:9],
		"too far":          numbers(8, far, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1),
		"absurdly far":     numbers(8, math.MaxUint64, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1),
		"adjusted too far": numbers(8, 0, 0, 0, 0, 0, 0, 0, 0, far, 1, 1),
		"too high":         numbers(8, 0, 0, 0, 0, 0, 0, 0, 0, 0, far, 1),
		"too wrong":        numbers(8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 151),
	} {
		if got := placeIn(body); got != nil {
			t.Errorf("%s: taken as %+v", name, got.At)
		}
	}
	if placeIn(numbers(8, far-2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 150)) == nil {
		t.Error("the farthest is refused")
	}
	wild := somePlace()
	wild.Vec[0], wild.Adjustment = 1e9, math.Inf(-1)
	if placeIn(placeBody(wild)) == nil {
		t.Error("what is told is not within the bounds")
	}
}

func FuzzPlace(f *testing.F) {
	f.Add(placeBody(somePlace()))
	f.Add([]byte{8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := placeIn(raw)
		if got == nil {
			return
		}
		if !got.At.IsValid() || !bytes.Equal(placeBody(got.At), placeBody(placeIn(placeBody(got.At)).At)) {
			t.Fatalf("%+v does not survive its own encoding", got.At)
		}
		own := newPlace("n", "b")
		own.regions["r"] = got
		own.measured("p", "r", 1)
		own.measured("p", "r", 10*time.Second)
		if !own.own.IsValid() || own.client.Stats().Resets > 0 {
			t.Fatalf("%+v makes this node's own coordinate %+v", got.At, own.own)
		}
	})
}
