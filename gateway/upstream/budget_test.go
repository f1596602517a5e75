package upstream

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestBudgetReserve(t *testing.T) {
	b := newBudget(epoch, budgetMinRate)
	taken := 0
	for b.take(epoch, 0) {
		taken++
	}
	if taken != 30 {
		t.Errorf("a fresh pool allows %d retries, want 30 (10 seconds' worth of 3)", taken)
	}
	taken = 0
	for s := 1; s <= 20; s++ {
		for b.take(epoch.Add(time.Duration(s)*time.Second), 0) {
			taken++
		}
	}
	if taken != 60 {
		t.Errorf("%d retries in 20 seconds, want 3 a second", taken)
	}
}

func TestBudgetShare(t *testing.T) {
	b := newBudget(epoch, budgetMinRate)
	for b.take(epoch, 0) { // the reserve is gone
	}
	now := epoch.Add(11 * time.Second)
	for b.take(now, 0) { // what was saved since, too
	}
	now = now.Add(11 * time.Second)
	b.reserve, b.refilled = 0, now
	for range 1000 {
		b.request(now)
	}
	taken := 0
	for b.take(now, 0.2) {
		taken++
	}
	if taken != 200 {
		t.Errorf("%d retries for 1000 requests at 20%%, want 200", taken)
	}
	now = now.Add(10 * time.Second)
	b.reserve, b.refilled = 0, now
	if b.take(now, 0.2) {
		t.Error("requests that left the window still count")
	}
}

// TestBudgetBound: whatever comes, retries stay within the share of what was sent plus the reserve.
func TestBudgetBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now, latest := newBudget(epoch, budgetMinRate), epoch, epoch
		share := rapid.Float64Range(0, 1).Draw(t, "share")
		requests, retries := 0, 0
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-50, 400).Draw(t, "ms")) * time.Millisecond)
			if now.After(latest) {
				latest = now
			}
			b.request(now)
			requests++
			for range rapid.IntRange(0, 4).Draw(t, "retries") {
				if b.take(now, share) {
					retries++
				}
			}
			if b.sumReq < 0 || b.sumRetry < 0 || b.reserve < 0 {
				t.Fatalf("negative: %+v", b)
			}
			limit := share*float64(requests) + (budgetWindow * budgetMinRate) + budgetMinRate*latest.Sub(epoch).Seconds() + 1e-9
			if float64(retries) > limit {
				t.Fatalf("%d retries for %d requests, limit %g", retries, requests, limit)
			}
		}
	})
}

func BenchmarkBudget(b *testing.B) {
	b.ReportAllocs()
	x, now := newBudget(epoch, budgetMinRate), epoch
	for b.Loop() {
		now = now.Add(time.Millisecond)
		x.request(now)
	}
}
