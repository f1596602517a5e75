package canary

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Unix(1_800_000_000, 0)

func usual() Policy {
	return Policy{ErrorRate: 0.02, LatencyP99: 1.5, Window: time.Minute, MinRequests: 100, Confidence: 0.99}
}

// TestBinomial holds the tails against exact sums in fractions.
func TestBinomial(t *testing.T) {
	for _, tt := range []struct {
		k, n int
		p    float64
		want float64
	}{
		{5, 10, 0.5, 0.623046875}, {10, 10, 0.5, 0.0009765625}, {0, 10, 0.5, 1}, {11, 10, 0.5, 0}, {1, 1000, 0.001, 0.6323045752},
		{20, 1000, 0.01, 0.0032883598}, {3, 5, 0, 0}, {3, 5, 1, 1},
	} {
		if got := tail(tt.k, tt.n, tt.p); math.Abs(got-tt.want) > 1e-6*max(1, tt.want) {
			t.Errorf("P(X >= %d | %d, %g) is %.10g, want %.10g", tt.k, tt.n, tt.p, got, tt.want)
		}
	}
	for _, tt := range []struct {
		k, n        int
		alpha, want float64
	}{{0, 10, 0.025, 0.3084971}, {1, 10, 0.025, 0.4450161}, {5, 100, 0.025, 0.1128349}, {10, 10, 0.025, 1}} {
		if got := atMost(tt.k, tt.n, tt.alpha); math.Abs(got-tt.want) > 1e-6 {
			t.Errorf("upper end for %d of %d: %.7f, want %.7f", tt.k, tt.n, got, tt.want)
		}
	}
	// The largest of n is above the 99th percentile with probability 1-0.99^n: 95% from n = 299 on.
	if _, ok := quantileRank(298, 0.99, 0.05); ok {
		t.Error("298 values do not bound the 99th percentile at 95%")
	}
	if rank, ok := quantileRank(299, 0.99, 0.05); !ok || rank != 299 {
		t.Error("299 values do, by the largest:", rank, ok)
	}
}

// TestTailIsATail: it falls in k, grows in p, and both ends of a distribution add up to 1.
func TestTailIsATail(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5000).Draw(t, "n")
		k, p := rapid.IntRange(0, n).Draw(t, "k"), rapid.Float64Range(0.0005, 0.9995).Draw(t, "p")
		here := tail(k, n, p)
		if next := tail(k+1, n, p); next > here+1e-12 || here < 0 || here > 1 {
			t.Fatalf("%d of %d at %g: %g, then %g", k, n, p, here, next)
		}
		if other := tail(n-k+1, n, 1-p); math.Abs(here+other-1) > 1e-7 {
			t.Fatalf("%d of %d at %g: %g and %g", k, n, p, here, other)
		}
		if more := tail(k, n, min(p*1.01, 0.9999)); more < here-1e-9 {
			t.Fatalf("%d of %d: less at a larger p", k, n)
		}
	})
}

// fill gives a side n requests within the window that ends now.
func fill(trial *Trial, r *rand.Rand, side Side, n int, errors float64, latency func() time.Duration, now time.Time) {
	for i := range n {
		at := now.Add(-time.Duration(i) * 50 * time.Second / time.Duration(n))
		trial.Observe(side, r.Float64() < errors, latency(), at)
	}
}

func lognormal(r *rand.Rand, median time.Duration) func() time.Duration {
	return func() time.Duration { return time.Duration(float64(median) * math.Exp(r.NormFloat64()*0.5)) }
}

func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		name             string
		stable, canary   int
		badS, badC       float64
		medianS, medianC time.Duration
		want             string // in the reason; empty: it stays
	}{
		{"both alike", 4000, 400, 0.01, 0.01, 20, 20, ""},
		{"both fail alike", 4000, 400, 0.5, 0.5, 20, 20, ""},
		{"all fail", 4000, 100, 0.001, 1, 20, 20, "100% of its 100 requests"},
		{"a tenth fails", 4000, 400, 0.001, 0.1, 20, 20, "failed, against"},
		{"a little worse than before, as is borne", 4000, 400, 0.01, 0.02, 20, 20, ""},
		{"too few to tell", 4000, 99, 0, 1, 20, 20, ""},
		{"nothing to compare with", 50, 400, 0, 1, 20, 20, ""},
		{"three times as slow", 4000, 400, 0, 0, 20, 60, "99th percentile"},
		{"a little slower, as is borne", 4000, 400, 0, 0, 20, 24, ""},
		{"faster", 4000, 400, 0, 0, 20, 5, ""},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		trial := New(usual())
		fill(trial, r, Stable, tt.stable, tt.badS, lognormal(r, tt.medianS*time.Millisecond), start)
		fill(trial, r, Canary, tt.canary, tt.badC, lognormal(r, tt.medianC*time.Millisecond), start)
		got := trial.Look(start, 1)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if again := trial.Look(start.Add(time.Second), 1); again != "" {
			t.Errorf("%s: it was looked again too soon", tt.name)
		}
	}
}

// TestFalseAlarms: a canary that fails exactly as much more as is borne, the worst that must be let live, is taken back in
// no more than 1-confidence of the windows, all looks and both tests together.
func TestFalseAlarms(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const windows = 400
	p := usual()
	p.Confidence = 0.95
	alarms := 0
	for range windows {
		trial, alarmed := New(p), false
		for look := range looksPer {
			now := start.Add(time.Duration(look) * p.Window / looksPer)
			for range 60 {
				trial.Observe(Stable, r.Float64() < 0.05, time.Millisecond, now)
				trial.Observe(Canary, r.Float64() < 0.05+p.ErrorRate, time.Millisecond, now)
			}
			alarmed = alarmed || trial.Look(now, 1) != ""
		}
		if alarmed {
			alarms++
		}
	}
	// 20 of 400 are allowed; beyond 33 it would be more than 5% with 99.8% certainty.
	if alarms > 33 {
		t.Errorf("%d of %d windows had a false alarm at a confidence of 95%%", alarms, windows)
	}
}

// TestWindowForgets: what is older than the window does not count, and a reset forgets all.
func TestWindowForgets(t *testing.T) {
	trial := New(usual())
	for range 200 {
		trial.Observe(Canary, true, 0, start)
		trial.Observe(Stable, false, time.Millisecond, start)
	}
	if _, c := trial.Samples(start.Add(30 * time.Second)); c.Requests != 200 || c.Failed != 200 {
		t.Error(c.Requests, c.Failed)
	}
	if _, c := trial.Samples(start.Add(61 * time.Second)); c.Requests != 0 {
		t.Error("what is older than the window counts:", c.Requests)
	}
	trial.Reset()
	if s, _ := trial.Samples(start); s.Requests != 0 {
		t.Error("a reset did not forget")
	}
}

// TestBuckets: a latency lies in its bucket, whose end is less than 4.5% above it.
func TestBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(int64(bucketLeast), int64(3*time.Minute)).Draw(t, "d"))
		if end := bucketEnd(bucketOf(d)); float64(end) < float64(d)*0.9999 || float64(end) > float64(d)*1.045 {
			t.Fatalf("%s is in the bucket that ends at %s", d, end)
		}
	})
	if bucketOf(0) != 0 || bucketOf(time.Hour) != bucketCount-1 || bucketOf(-1) != 0 {
		t.Error("out of range")
	}
}

func BenchmarkObserve(b *testing.B) {
	trial := New(usual())
	b.ReportAllocs()
	for b.Loop() {
		trial.Observe(Canary, false, 3*time.Millisecond, start)
	}
}

func BenchmarkLook(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	trial := New(usual())
	fill(trial, r, Stable, 100_000, 0.01, lognormal(r, 20*time.Millisecond), start)
	fill(trial, r, Canary, 5_000, 0.01, lognormal(r, 20*time.Millisecond), start)
	b.ReportAllocs()
	for b.Loop() {
		trial.looked = time.Time{}
		trial.Look(start, 3)
	}
}
