package homes

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

func user(i int) string { return fmt.Sprintf("user-%d", i) }

// Each region has as many of the keys as its weight says, and an order of all regions begins with the home.
func TestRingFollowsWeights(t *testing.T) {
	r := NewRing(map[string]int{"eu": 1, "us": 2, "ap": 1, "gone": 0})
	const n = 40_000
	got := map[string]int{}
	for i := range n {
		key := KeyOf(user(i))
		home := r.Home(key)
		got[home]++
		order := r.Order(key)
		if order[0] != home || len(order) != 3 {
			t.Fatalf("home %s, order %v", home, order)
		}
		if slices.Sort(order); !slices.Equal(order, []string{"ap", "eu", "us"}) {
			t.Fatalf("%v", order)
		}
	}
	for name, want := range map[string]float64{"eu": 0.25, "us": 0.5, "ap": 0.25} {
		if share := float64(got[name]) / n; math.Abs(share-want) > 0.01 {
			t.Errorf("%s has %.3f of the keys, want %.2f", name, share, want)
		}
	}
	if got := (Ring{}).Home(1); got != "" {
		t.Errorf("an empty ring has a home: %q", got)
	}
}

// When a region is added or leaves, only the keys that it gains or had move; a key's second choice becomes its home.
func TestRingMovesLittle(t *testing.T) {
	small, big := NewRing(map[string]int{"eu": 1, "us": 1}), NewRing(map[string]int{"eu": 1, "us": 1, "ap": 1})
	moved := 0
	const n = 20_000
	for i := range n {
		key := KeyOf(user(i))
		before, after := small.Home(key), big.Home(key)
		if before != after {
			moved++
			if after != "ap" {
				t.Fatalf("a key moved from %s to %s, which was there before", before, after)
			}
			if next := big.Order(key)[1]; next != before {
				t.Fatalf("without ap a key would be in %s, not %s", next, before)
			}
		}
	}
	if share := float64(moved) / n; math.Abs(share-1.0/3) > 0.02 {
		t.Errorf("%.3f of the keys moved, want a third", share)
	}
}

// The ring is the same in every version: a node that is updated must not move anybody.
func TestRingIsStable(t *testing.T) {
	r := NewRing(map[string]int{"ap-southeast": 1, "eu-west": 2, "us-east": 3})
	var got string
	for i := range 24 {
		got += r.Home(KeyOf(user(i)))[:2] + " "
	}
	const want = "eu us us ap us us us us ap us us eu ap eu us us eu us us eu ap us us us "
	if got != want {
		t.Errorf("homes changed:\n got %s\nwant %s", got, want)
	}
	if f := fingerprint(r, NewRing(map[string]int{"eu-west": 300})); f != "9a1a29df652737cf" {
		t.Errorf("the fingerprint changed: %s", f)
	}
}

func BenchmarkFind(b *testing.B) {
	d := New(Options{Service: "shop", Regions: map[string]int{"eu": 1, "us": 2, "ap": 1}})
	defer d.Close()
	b.ReportAllocs()
	for b.Loop() {
		if h, _ := d.Find(b.Context(), "user-4711"); h.Region == "" {
			b.Fatal("no home")
		}
	}
}
