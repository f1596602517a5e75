package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// wire is a peer channel on virtual time: each request takes rtt, and the peer answers, refuses or stays silent.
type wire struct {
	rtt  time.Duration
	mode outcome // set only while no goroutine of the bubble runs
	got  int
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.mode == refused {
		return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	}
	if w.mode == missed {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	select {
	case <-time.After(w.rtt):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	w.got++
	body := encode(beat{Fleet: "f", Node: "peer", Meta: appendMeta(nil, someInfo()), Digest: newTable().digest()})
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

// quiet is a mesh without gossip that knows one peer.
func quiet(w *wire) *Mesh {
	log := slog.New(slog.DiscardHandler)
	m := &Mesh{
		opt: Options{
			Node: "self", Fleet: "f", Heartbeat: defaultHeartbeat, Client: &http.Client{Transport: w},
			Now: time.Now, Rand: func() float64 { return 0.5 },
		},
		log: log, metrics: NewMetrics(prometheus.NewRegistry()), notify: newNotifier(log, nil, nil), self: someInfo(),
		members: map[string]*member{"peer": {name: "peer", info: someInfo(), alive: true, heard: true}},
		ready:   make(chan struct{}), peersKick: make(chan struct{}, 1), joinKick: make(chan struct{}, 1),
		beatKicks: map[string]chan struct{}{},
	}
	m.registry = &registry{clock: newClock("self", time.Now), log: log, metrics: m.metrics, notify: m.notify, table: newTable(), tell: func(Register) {}}
	return m
}

// until returns how long, on virtual time, it takes for the peer to be seen as wanted.
func until(t *testing.T, m *Mesh, want bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if m.Members()[0].Reachable == want {
			return time.Since(start)
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("the peer never became reachable=%v", want)
		}
	}
	return 0
}

func TestHowSoonAPeerIsJudged(t *testing.T) {
	for _, c := range []struct {
		name      string
		rtt       time.Duration
		failure   outcome
		down, up  time.Duration // at most
		downLeast time.Duration
	}{
		{"killed", time.Millisecond, refused, 400 * time.Millisecond, 550 * time.Millisecond, 0},
		{"killed, far away", 300 * time.Millisecond, refused, 600 * time.Millisecond, 950 * time.Millisecond, 0},
		{"gone silent", time.Millisecond, missed, 1100 * time.Millisecond, 1600 * time.Millisecond, 700 * time.Millisecond},
		{"gone silent, far away", 300 * time.Millisecond, missed, 2000 * time.Millisecond, 2800 * time.Millisecond, 1100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{rtt: c.rtt}
				m := quiet(w)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go m.runPeers(ctx)
				until(t, m, true)
				<-time.After(10 * time.Second)
				synctest.Wait()
				if rtt := m.Members()[0].RTT; rtt != c.rtt {
					t.Errorf("the round trip is taken for %s, not %s", rtt, c.rtt)
				}
				w.mode = c.failure
				if took := until(t, m, false); took > c.down || took < c.downLeast {
					t.Errorf("unreachable after %s, not %s to %s", took, c.downLeast, c.down)
				}
				synctest.Wait()
				w.mode = good
				if took := until(t, m, true); took > c.up {
					t.Errorf("back after %s, not within %s", took, c.up)
				}
			})
		})
	}
}

func TestBeatsKeepTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{rtt: 100 * time.Millisecond}
		m := quiet(w)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.runPeers(ctx)
		<-time.After(100 * time.Second)
		synctest.Wait()
		if w.got < 390 || w.got > 410 {
			t.Errorf("%d beats in 100 s, not about 400: the path's length must not slow them", w.got)
		}
		select {
		case <-m.Ready():
		default:
			t.Error("a peer with the same registers does not make it ready")
		}
	})
}

func TestClassify(t *testing.T) {
	for err, want := range map[error]outcome{
		nil:                           good,
		context.DeadlineExceeded:      missed,
		syscall.ECONNREFUSED:          refused,
		io.ErrUnexpectedEOF:           refused,
		&statusError{503, "no"}:       refused,
		errors.New("bad certificate"): refused,
		error(syscall.Errno(0x6e)):    missed, // ETIMEDOUT
		fmt.Errorf("%w", io.EOF):      refused,
	} {
		if got := classify(err); got != want {
			t.Errorf("%v: %d, not %d", err, got, want)
		}
	}
}
