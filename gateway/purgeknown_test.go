package gateway

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestKnownCovers: what one node knows covers what another does just when all that is applied there is applied here.
func TestKnownCovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1000, 0)
		var tracks [2]*purgeTrack
		var applied [2]map[string]bool
		for i := range tracks {
			tracks[i] = newPurgeTrack(func(why string) { t.Fatal(why) })
			applied[i] = map[string]bool{}
			for _, writer := range []string{"a/1", "b/2", "c/3"} {
				for _, seq := range rapid.SliceOfN(rapid.Uint64Range(1, 6), 0, 8).Draw(t, "seqs") {
					tracks[i].take(writer, seq, 1, now, func() { applied[i][fmt.Sprint(writer, seq)] = true })
				}
			}
		}
		known, fits := tracks[0].Known()
		want := true
		for p := range applied[0] {
			want = want && applied[1][p]
		}
		if got, _ := tracks[1].covers(known); got != want || !fits {
			t.Fatalf("%v covers %v: %v, written as %q", applied[1], applied[0], got, known)
		}
		if again, _ := tracks[0].covers(known); !again {
			t.Fatalf("%q does not cover itself", known)
		}
	})
}

// TestReachedWaits: a node that is asked waits for a purge that is on its way, and not for ever.
func TestReachedWaits(t *testing.T) {
	now := time.Unix(1000, 0)
	ahead, late := newPurgeTrack(func(string) {}), newPurgeTrack(func(string) {})
	ahead.take("w", 1, 1, now, func() {})
	known, _ := ahead.Known()
	if late.Reached(t.Context(), known) {
		t.Error("reached what never came")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if late.Reached(ctx, known) {
		t.Error("reached after the request's end")
	}
	done := make(chan bool)
	go func() { done <- late.Reached(t.Context(), known) }()
	late.take("w", 1, 1, now, func() {})
	if !receive(t, "an answer", done) {
		t.Error("not reached though it came")
	}
	for _, bad := range []string{"", "2;", "1;x", "1;x:", "1;x:!", "1;x:1+", "1;:1", strings.Repeat("1", maxKnown+1)} {
		if late.Reached(t.Context(), bad) {
			t.Errorf("%.20q was reached", bad)
		}
	}
}

// TestKnownIsBounded: what does not fit a header is said not to.
func TestKnownIsBounded(t *testing.T) {
	track := newPurgeTrack(func(string) {})
	for i := range 1000 {
		track.take(fmt.Sprint("node/", i), 1, 1, time.Unix(1000, 0), func() {})
	}
	if known, fits := track.Known(); fits {
		t.Errorf("%d bytes fit", len(known))
	}
	track.take("new", 1, 1, time.Unix(1000, 0).Add(purgeTTL+time.Second), func() {})
	if known, fits := track.Known(); !fits || strings.Count(known, ",") != 0 {
		t.Errorf("writers of long ago are still told of: %.60q", known)
	}
}

// TestKnownOfAQuietFleet: what was purged long ago is not asked of a node that has just started and never hears of it.
func TestKnownOfAQuietFleet(t *testing.T) {
	now := time.Unix(1000, 0)
	old, started := newPurgeTrack(func(string) {}), newPurgeTrack(func(string) {})
	old.take("w", 1, 1, now, func() {})
	old.tick(now.Add(purgeTTL))
	known, _ := old.Known()
	if ok, _ := started.covers(known); ok {
		t.Error("a purge that can still be heard of is not told")
	}
	old.tick(now.Add(purgeTTL + 2*time.Minute))
	known, _ = old.Known()
	if ok, _ := started.covers(known); !ok {
		t.Errorf("%q is not covered", known)
	}
}

func FuzzKnown(f *testing.F) {
	track := newPurgeTrack(func(string) {})
	for seq := range uint64(5) {
		track.take("w", 2*seq+1, 1, time.Unix(1000, 0), func() {})
	}
	known, _ := track.Known()
	f.Add(known)
	f.Add("1;a:3+5,b:1")
	f.Fuzz(func(t *testing.T, s string) {
		if ok, _ := track.covers(s); ok && s != known {
			// Whatever is covered names nothing but this writer and what it has, or numbers of 0.
			for item := range strings.SplitSeq(strings.TrimPrefix(s, "1;"), ",") {
				id, numbers, _ := strings.Cut(item, ":")
				if item != "" && id != writerID("w") && strings.Trim(numbers, "0+-") != "" {
					t.Fatalf("%q is covered", s)
				}
			}
		}
	})
}
