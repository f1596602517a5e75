package drill

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"landfall/cache/replay"
	"landfall/deploy/lab"
	"landfall/gateway/admin"
)

// OffloadReport is what the offload drill measured.
type OffloadReport struct {
	Requests       int64   `json:"requests"`
	OriginRequests int64   `json:"origin_requests"`
	HitRate        float64 `json:"hit_rate"`    // answered without waiting for an origin, or with another client's fetch
	Offload        float64 `json:"offload"`     // 1 - origin requests / requests
	BytesSaved     float64 `json:"bytes_saved"` // 1 - bytes of bodies sent / bytes without compression
	Failed         int64   `json:"failed"`
	Wrong          int64   `json:"wrong"` // uncoded bodies that were another's
}

// The promise: what the cache must spare.
const (
	hitPromise     = 0.85
	offloadPromise = 0.85
	savedPromise   = 0.40
)

const (
	replayed    = 20_000 // requests
	replayRate  = 1000   // at most so many a second: what expires between two of them depends on it
	replayUsers = 4      // of each node, who send one request after the other
)

// offloadDrill replays a realistic mix at every node, from a cold cache, and counts what reaches the origins.
func offloadDrill(ctx context.Context, s *session) error {
	if err := s.phase(ctx, "before", time.Second); err != nil {
		return err
	}
	api := admin.NewClient(s.fleet.Admin, "", &http.Client{Timeout: controlPatience})
	defer api.Close()
	all := admin.PurgeRequest{Service: "shop", Prefixes: []string{"http://" + s.fleet.Host + lab.ReplayPath + "/"}}
	if _, err := api.Purge(ctx, all, admin.WaitAll, 0); err != nil {
		return fmt.Errorf("empty the cache: %w", err)
	}
	m := &mix{host: s.fleet.Host, prefix: lab.ReplayPath, seed: s.o.Seed, most: replayed}
	if s.o.For > 0 {
		m.most = int64(s.o.For.Seconds() * replayRate)
	}
	for _, region := range s.fleet.Regions {
		for _, node := range region.Nodes {
			m.nodes = append(m.nodes, fmt.Sprintf("http://%s:%d", node.Addr, lab.HTTPPort))
		}
		m.origins = append(m.origins, region.Origins...)
	}
	if err := s.phase(ctx, fmt.Sprintf("replaying %d requests", m.most), 0); err != nil {
		return err
	}
	out, err := m.run(ctx)
	if err != nil {
		return err
	}
	s.report.Offload = out
	s.judgeOffload(out)
	return nil
}

// mix is a replay at nodes.
type mix struct {
	nodes, origins []string // URLs
	host, prefix   string
	seed           uint64
	most           int64 // requests

	client                    *http.Client
	bodies                    replay.Origin
	begun                     time.Time
	next, hits, failed, wrong atomic.Int64
	sent, uncoded, answered   atomic.Int64
}

func (m *mix) run(ctx context.Context) (*OffloadReport, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: replayUsers + 1, DisableCompression: true}
	defer transport.CloseIdleConnections()
	m.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	before, err := m.asked(ctx)
	if err != nil {
		return nil, err
	}
	m.begun = time.Now()
	var users sync.WaitGroup
	for i := range len(m.nodes) * replayUsers {
		skew := 0.8
		if i%2 == 1 {
			skew = 1.1
		}
		users.Go(func() { m.user(ctx, m.nodes[i%len(m.nodes)], replay.New(m.seed<<16+uint64(i), skew)) })
	}
	users.Wait()
	after, err := m.asked(ctx)
	if err != nil {
		return nil, err
	}
	out := &OffloadReport{Requests: m.answered.Load() + m.failed.Load(), OriginRequests: after - before, Failed: m.failed.Load(), Wrong: m.wrong.Load()}
	if out.Requests > 0 && m.uncoded.Load() > 0 {
		out.HitRate = float64(m.hits.Load()) / float64(out.Requests)
		out.Offload = 1 - float64(out.OriginRequests)/float64(out.Requests)
		out.BytesSaved = 1 - float64(m.sent.Load())/float64(m.uncoded.Load())
	}
	return out, ctx.Err()
}

// asked is how many requests of the mix the origins have had.
func (m *mix) asked(ctx context.Context) (total int64, err error) {
	for _, origin := range m.origins {
		n, err := lab.Replayed(ctx, m.client, origin)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func (m *mix) user(ctx context.Context, node string, r *replay.Replayer) {
	for {
		n := m.next.Add(1)
		due := m.begun.Add(time.Duration(n) * time.Second / replayRate)
		if n > m.most || pause(ctx, time.Until(due)) != nil {
			return
		}
		path, accept := r.Draw()
		if err := m.ask(ctx, node, path, accept); err != nil {
			m.failed.Add(1)
		}
	}
}

func (m *mix) ask(ctx context.Context, node, path, accept string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, node+m.prefix+path, nil)
	if err != nil {
		return err
	}
	r.Host = m.host
	r.Header.Set("Accept-Encoding", accept)
	resp, err := m.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is answered by %d", path, resp.StatusCode)
	}
	whole := m.bodies.Body(path)
	if resp.Header.Get("Content-Encoding") == "" && string(body) != string(whole) {
		m.wrong.Add(1)
	}
	if lab.ServedFromCache(resp.Header) {
		m.hits.Add(1)
	}
	m.answered.Add(1)
	m.sent.Add(int64(len(body)))
	m.uncoded.Add(int64(len(whole)))
	return nil
}

// judgeOffload holds the figures against the promise.
func (s *session) judgeOffload(out *OffloadReport) {
	for _, f := range []struct {
		what      string
		got, want float64
	}{
		{"the hit rate", out.HitRate, hitPromise}, {"the requests that origins were spared", out.Offload, offloadPromise},
		{"the bytes that compression saved", out.BytesSaved, savedPromise},
	} {
		if f.got < f.want {
			s.broke("%s: %.1f%%, less than %.0f%%", f.what, 100*f.got, 100*f.want)
		}
	}
	if out.Failed > 0 || out.Wrong > 0 {
		s.broke("%d requests failed, %d bodies were wrong", out.Failed, out.Wrong)
	}
	if out.Requests < 100 {
		s.broke("%d requests show nothing", out.Requests)
	}
}

func (o *OffloadReport) print(w io.Writer) {
	fmt.Fprintf(w, "\nreplayed: %d requests, of which origins had %d; %d failed\n", o.Requests, o.OriginRequests, o.Failed)
	fmt.Fprintf(w, "hit rate %.1f%%, origins spared %.1f%%, bytes saved by compression %.1f%%\n", 100*o.HitRate, 100*o.Offload, 100*o.BytesSaved)
}
