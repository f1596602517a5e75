package ratelimit

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestBound: whatever the pattern of requests, no span of time sees more than its share and the burst; and whoever
// keeps within the rate is never refused.
func TestBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate, burst := rapid.IntRange(1, 100).Draw(t, "rate"), rapid.IntRange(1, 50).Draw(t, "burst")
		l := New(Terms{Rate: float64(rate), Burst: burst}, false)
		now, taken := time.Unix(1_800_000_000, 0), []time.Time{}
		for _, step := range rapid.SliceOfN(rapid.IntRange(0, 200), 1, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(step) * time.Millisecond)
			ok, wait := l.Take(7, now)
			if ok {
				taken = append(taken, now)
			} else if again, _ := l.Take(7, now.Add(wait)); !again && step >= 0 {
				t.Fatal("refused after the wait that was named")
			} else {
				now = now.Add(wait)
				taken = append(taken, now)
			}
		}
		for i := range taken {
			for j := i; j < len(taken); j++ {
				span := taken[j].Sub(taken[i])
				if most := float64(burst) + span.Seconds()*float64(rate) + 1e-6; float64(j-i+1) > most+1e-3 {
					t.Fatalf("%d requests in %s at %d/s with a burst of %d", j-i+1, span, rate, burst)
				}
			}
		}
	})
}

// TestTableIsBounded: a flood of keys costs no memory and locks nobody out.
func TestTableIsBounded(t *testing.T) {
	l := New(Terms{Rate: 1, Burst: 1}, false)
	now := time.Unix(1_800_000_000, 0)
	for key := range uint64(1_000_000) {
		if ok, _ := l.Take(key+1, now); !ok {
			t.Fatal("a key that was never seen is refused")
		}
	}
}
