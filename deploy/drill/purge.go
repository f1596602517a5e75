package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"landfall/cache/history"
	"landfall/deploy/lab"
	"landfall/gateway/admin"
)

// PurgeReport is what the purge drill saw.
type PurgeReport struct {
	Reads      int                `json:"reads"`
	Purges     int                `json:"purges"`
	Failed     int                `json:"failed"`     // purges that were not carried out
	Unheard    int                `json:"unheard"`    // purges that a node did not confirm
	Violations []string           `json:"violations"` // the first few
	StaleMS    map[string]float64 `json:"stale_ms"`   // time from a purge's issue to the end of the last stale read: quantiles over all purges
}

const (
	drillObjects = 20
	drillLasts   = 20 * time.Second
	readers      = 4 // of each node
	pauseNode    = 4 * time.Second
	badNetwork   = 5 * time.Second // how long a region is cut off, and how long much is lost on its ways
	drillLoss    = 10              // percent
	drillSkew    = 55              // seconds by which a region's clocks are off at most, either way
)

// purgeDrill changes objects and purges them, and reads them everywhere. Meanwhile it kills a region and gives it clocks that are
// off, stops a node of another, cuts that region off and lets its packets get lost. Then it looks for reads that were older than
// they may be.
func purgeDrill(ctx context.Context, s *session) error {
	if err := s.phase(ctx, "before", time.Second); err != nil {
		return err
	}
	s.history = history.New()
	out := &PurgeReport{Violations: []string{}}
	s.report.Purge = out
	stop := make(chan struct{})
	var running sync.WaitGroup
	defer running.Wait()
	ended := sync.OnceFunc(func() { close(stop) })
	defer ended()
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * readers, DisableCompression: true}}
	defer client.CloseIdleConnections()
	w := &purgeWriters{s: s, client: client, admin: &http.Client{Timeout: controlPatience}, version: make([]int, drillObjects), report: out}
	for object := range drillObjects {
		w.write(ctx, object) // so that there is something to read
	}
	for i := range 3 {
		rng := rand.New(rand.NewPCG(s.o.Seed, uint64(100+i)))
		running.Go(func() { w.run(ctx, stop, rng, i) })
	}
	seed := uint64(1000)
	for _, region := range s.fleet.Regions {
		for _, node := range region.Nodes {
			for range readers {
				seed++
				rng := rand.New(rand.NewPCG(s.o.Seed, seed))
				running.Go(func() { s.readVersions(ctx, stop, client, node, rng) })
			}
		}
	}
	err := s.purgeFaults(ctx)
	ended()
	running.Wait()
	s.judgePurges(out)
	return errors.Join(err, s.setClocks(context.WithoutCancel(ctx), s.target.Name))
}

// purgeFaults is the trouble, for as long as the drill lasts.
func (s *session) purgeFaults(ctx context.Context) error {
	lasts := s.o.For
	if lasts <= 0 {
		lasts = drillLasts
	}
	end := s.now().Add(lasts)
	other := s.fleet.Regions[0]
	if other.Name == s.target.Name {
		other = s.fleet.Regions[1]
	}
	clocks := rand.New(rand.NewPCG(s.o.Seed, 7))
	for round := 0; ; round++ {
		if err := s.phase(ctx, fmt.Sprintf("quiet %d", round+1), 4*time.Second); err != nil {
			return err
		}
		if s.now().After(end) {
			return nil
		}
		for _, fault := range []func(context.Context, lab.Region) error{s.standStill, s.cutOff, s.loseMuch} {
			if err := fault(ctx, other); err != nil {
				return err
			}
		}
		s.say("killing every process of %s", s.target.Name)
		s.struck()
		if err := s.control.KillRegion(ctx, s.target.Name); err != nil {
			return err
		}
		err := pause(ctx, 4*time.Second)
		off := time.Duration(clocks.IntN(2*drillSkew+1)-drillSkew) * time.Second
		s.say("bringing %s back, with clocks that are off by %s", s.target.Name, off)
		if err = errors.Join(err, s.control.SetTrouble(context.WithoutCancel(ctx), s.target.Name, lab.Trouble{Clock: off}),
			s.control.StartRegion(context.WithoutCancel(ctx), s.target.Name)); err != nil {
			return err
		}
	}
}

// setClocks lets a region go on with clocks that are right.
func (s *session) setClocks(ctx context.Context, region string) error {
	return errors.Join(s.control.SetTrouble(ctx, region, lab.Trouble{}), s.control.KillRegion(ctx, region), s.control.StartRegion(ctx, region))
}

// standStill stops a node's process and lets it go on: to the others it is silent, and it knows nothing of it.
func (s *session) standStill(ctx context.Context, region lab.Region) error {
	fleet, err := s.control.Fleet(ctx)
	if err != nil {
		return err
	}
	region, _ = fleet.Region(region.Name)
	node := region.Nodes[len(region.Nodes)-1]
	p, err := os.FindProcess(node.PID)
	if err != nil || node.PID == 0 {
		return fmt.Errorf("%s is not running", node.Name)
	}
	s.say("%s stands still for %s", node.Name, pauseNode)
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop %s: %w", node.Name, err)
	}
	err = pause(ctx, pauseNode)
	if again := p.Signal(syscall.SIGCONT); again != nil {
		return fmt.Errorf("let %s go on: %w", node.Name, again)
	}
	return err
}

// cutOff parts a region from the others for a while, and with its clients and origins it goes on.
func (s *session) cutOff(ctx context.Context, region lab.Region) error {
	s.say("the nodes of %s and all others hear nothing of each other for %s", region.Name, badNetwork)
	return s.trouble(ctx, region, lab.Trouble{Cut: true})
}

// loseMuch lets a region's ways to the others lose much of what goes there for a while.
func (s *session) loseMuch(ctx context.Context, region lab.Region) error {
	s.say("%d%% is lost between the nodes of %s and all others for %s", drillLoss, region.Name, badNetwork)
	return s.trouble(ctx, region, lab.Trouble{Loss: drillLoss})
}

func (s *session) trouble(ctx context.Context, region lab.Region, t lab.Trouble) error {
	err := s.control.SetTrouble(ctx, region.Name, t)
	if err == nil {
		err = pause(ctx, badNetwork)
	}
	return errors.Join(err, s.control.SetTrouble(context.WithoutCancel(ctx), region.Name, lab.Trouble{}))
}

// purgeWriters change objects. Each object has one writer, so that its versions are in order.
type purgeWriters struct {
	s      *session
	client *http.Client
	admin  *http.Client
	report *PurgeReport

	mu      sync.Mutex
	version []int
}

func (w *purgeWriters) run(ctx context.Context, stop <-chan struct{}, rng *rand.Rand, part int) {
	for ctx.Err() == nil {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rng.IntN(60)) * time.Millisecond):
		}
		object := rng.IntN(drillObjects)
		object -= object % 3
		object = (object + part) % drillObjects
		if object%3 != part {
			continue
		}
		w.write(ctx, object)
		w.purge(ctx, object, rng.IntN(3))
	}
}

// write sets an object's next version in every region.
func (w *purgeWriters) write(ctx context.Context, object int) {
	w.mu.Lock()
	w.version[object]++
	version := w.version[object]
	w.mu.Unlock()
	for _, region := range w.s.fleet.Regions {
		for _, origin := range region.Origins {
			r, err := http.NewRequestWithContext(ctx, http.MethodPut, fmt.Sprintf("%s/versions/%d?v=%d", origin, object, version), nil)
			if err != nil {
				continue
			}
			if resp, err := w.client.Do(r); err == nil { // one that is dead knows no version at all
				_ = resp.Body.Close()
			}
		}
	}
}

// purge purges an object, by URL, by key, or softly by key, through any node that lives.
func (w *purgeWriters) purge(ctx context.Context, object, how int) {
	w.mu.Lock()
	version := w.version[object]
	w.mu.Unlock()
	req := admin.PurgeRequest{Service: "shop", Keys: []string{fmt.Sprintf("version-%d", object)}}
	if how == 0 {
		req.Keys, req.URLs = nil, []string{fmt.Sprintf("http://%s/versions/%d", w.s.fleet.Host, object)}
	}
	req.Soft = how == 1
	issued := w.s.now()
	res, err := w.purgeAnywhere(ctx, req)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.report.Failed++
		return
	}
	var unheard []string
	for _, region := range w.s.fleet.Regions {
		for _, n := range region.Nodes {
			if !slices.ContainsFunc(res.Applied, func(a admin.PurgeApplied) bool { return a.Node == n.Name }) {
				unheard = append(unheard, n.Name)
			}
		}
	}
	if len(unheard) > 0 {
		w.report.Unheard++
	}
	w.s.history.Purged(strconv.Itoa(object), version, issued, w.s.now(), unheard)
}

func (w *purgeWriters) purgeAnywhere(ctx context.Context, req admin.PurgeRequest) (res admin.PurgeResult, err error) {
	err = errors.New("no node was asked")
	for _, region := range w.s.fleet.Regions {
		api := admin.NewClient(region.Nodes[0].Admin(), "", w.admin)
		res, err = api.Purge(ctx, req, admin.WaitAll, 0)
		api.Close()
		if err == nil || ctx.Err() != nil {
			return res, err
		}
	}
	return res, err
}

// readVersions reads objects at one node.
func (s *session) readVersions(ctx context.Context, stop <-chan struct{}, client *http.Client, node lab.Node, rng *rand.Rand) {
	for ctx.Err() == nil {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(5+rng.IntN(20)) * time.Millisecond):
		}
		object := strconv.Itoa(rng.IntN(drillObjects))
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/versions/%s", node.Addr, lab.HTTPPort, object), nil)
		if err != nil {
			return
		}
		r.Host = s.fleet.Host
		began := s.now()
		resp, err := client.Do(r)
		if err != nil {
			continue // the node is dead, or stands still
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, 64))
		_ = resp.Body.Close()
		if version, bad := strconv.Atoi(string(b)); err == nil && bad == nil && resp.StatusCode == http.StatusOK {
			s.history.Read(object, node.Name, began, s.now(), version)
		}
	}
}

// judgePurges checks the history.
func (s *session) judgePurges(out *PurgeReport) {
	r := s.history.Check()
	out.Reads, out.Purges = r.Reads, r.Purges
	out.StaleMS = map[string]float64{"p50": ms(r.Quantile(.5)), "p90": ms(r.Quantile(.9)), "p99": ms(r.Quantile(.99)), "max": ms(r.Quantile(1))}
	for _, v := range r.Violations[:min(len(r.Violations), 5)] {
		out.Violations = append(out.Violations, v.String())
	}
	if n := len(r.Violations); n > 0 {
		s.broke("%d reads were older than a purge that their node had confirmed, the first: %s", n, r.Violations[0])
	}
	if out.Reads < 100 || out.Purges < 10 {
		s.broke("%d reads and %d purges show nothing", out.Reads, out.Purges)
	}
}

func (p *PurgeReport) print(w io.Writer) {
	fmt.Fprintf(w, "\npurges: %d, of which %d were not confirmed by every node; %d more failed\n", p.Purges, p.Unheard, p.Failed)
	fmt.Fprintf(w, "last stale read after a purge's issue: p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms\n", p.StaleMS["p50"], p.StaleMS["p90"], p.StaleMS["p99"], p.StaleMS["max"])
}
