package homes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// The bounds of looking up.
const (
	maxAnswer   = 4 << 10     // bytes of the service's answer
	maxAsking   = 64          // lookups under way at once; more fail at once
	forgetAfter = time.Second // how long a failure is remembered, so that a dead service is not asked by every request
	shards      = 64
)

// lookup asks a service where users' data is, and remembers.
type lookup struct {
	o       Options
	regions map[string]bool // what it may answer
	client  *http.Client
	asking  chan struct{}
	flight  singleflight.Group

	mu      sync.Mutex
	closed  bool // users of an older config still ask, but leave no connection behind
	running sync.WaitGroup

	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex
	known map[string]entry
}

// entry is what the service said of a user.
type entry struct {
	region string // empty: that it knows none
	at     time.Time
	failed time.Time // the latest attempt to ask again, when it failed
	asked  bool      // it was said at all; false: only failed
}

func newLookup(o Options) *lookup {
	l := &lookup{o: o, regions: map[string]bool{}, asking: make(chan struct{}, maxAsking)}
	for _, ring := range []map[string]int{o.Regions, o.Next} {
		for name := range ring {
			l.regions[name] = true
		}
	}
	transport := o.Transport
	if transport == nil {
		transport = &http.Transport{
			DialContext:  (&net.Dialer{Timeout: o.Lookup.Timeout.D()}).DialContext,
			MaxIdleConns: maxAsking, MaxIdleConnsPerHost: maxAsking, MaxConnsPerHost: maxAsking, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 16 << 10,
		}
	}
	l.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for i := range l.shards {
		l.shards[i].known = map[string]entry{}
	}
	return l
}

// close waits for the questions under way, at most the timeout.
func (l *lookup) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.running.Wait()
	l.client.CloseIdleConnections()
}

// begin counts a question in, unless nobody waits for questions any more.
func (l *lookup) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.running.Add(1)
	}
	return !l.closed
}

func (l *lookup) shard(user string) *shard { return &l.shards[hash(user)%shards] }

func (l *lookup) size() int {
	n := 0
	for i := range l.shards {
		l.shards[i].mu.Lock()
		n += len(l.shards[i].known)
		l.shards[i].mu.Unlock()
	}
	return n
}

// find tells a user's region; known is false for a user of whom the service knows none.
func (l *lookup) find(ctx context.Context, user string) (region string, known bool, err error) {
	now, c := l.o.Now(), l.o.Lookup
	s := l.shard(user)
	s.mu.Lock()
	e, found := s.known[user]
	s.mu.Unlock()
	age := now.Sub(e.at)
	recentlyFailed := found && !e.failed.IsZero() && now.Sub(e.failed) < forgetAfter
	switch {
	case found && e.asked && age < c.TTL.D():
		l.count("fresh")
		return e.region, e.region != "", nil
	case found && e.asked && age < c.TTL.D()+c.Stale.D():
		l.count("stale")
		if !recentlyFailed {
			l.refresh(user)
		}
		return e.region, e.region != "", nil
	case recentlyFailed:
		l.count("failed")
		return "", false, ErrUnknown
	}
	return l.wait(ctx, user)
}

// wait asks, together with whoever else waits for the same user.
func (l *lookup) wait(ctx context.Context, user string) (region string, known bool, err error) {
	done := l.flight.DoChan(user, func() (any, error) { return l.ask(user) })
	select {
	case r := <-done:
		if r.Err != nil {
			l.count("failed")
			return "", false, fmt.Errorf("%w: %w", ErrUnknown, r.Err)
		}
		region = r.Val.(string)
		if region == "" {
			l.count("unknown")
		} else {
			l.count("asked")
		}
		return region, region != "", nil
	case <-ctx.Done():
		return "", false, ctx.Err()
	}
}

// refresh asks again in the background.
func (l *lookup) refresh(user string) {
	if !l.begin() {
		return
	}
	go func() {
		defer l.running.Done()
		_, _, _ = l.flight.Do(user, func() (any, error) { // what is remembered goes on to hold
			s := l.shard(user)
			s.mu.Lock()
			e := s.known[user]
			s.mu.Unlock()
			if l.o.Now().Sub(e.at) < l.o.Lookup.TTL.D() {
				return e.region, nil // somebody was faster
			}
			return l.ask(user)
		})
	}()
}

func (l *lookup) count(result string) { l.o.Metrics.lookups.WithLabelValues(l.o.Service, result).Inc() }

// ask asks the service and remembers what came of it.
func (l *lookup) ask(user string) (string, error) {
	if l.begin() {
		defer l.running.Done()
	} else {
		defer l.client.CloseIdleConnections()
	}
	region, err := l.request(user)
	now := l.o.Now()
	s := l.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.known[user]
	if err != nil {
		e.failed = now
	} else {
		e = entry{region: region, at: now, asked: true}
	}
	if _, there := s.known[user]; !there && len(s.known) >= max(l.o.Lookup.Entries/shards, 1) {
		for other := range s.known { // any: the order of a map is as good as chance
			delete(s.known, other)
			break
		}
	}
	s.known[user] = e
	return region, err
}

var errBusy = errors.New("too many lookups are under way")

func (l *lookup) request(user string) (string, error) {
	select {
	case l.asking <- struct{}{}:
		defer func() { <-l.asking }()
	default:
		return "", errBusy
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.o.Lookup.Timeout.D())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ReplaceAll(l.o.Lookup.URL, "{key}", strings.ReplaceAll(url.QueryEscape(user), "+", "%20")), nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Accept", "application/json, text/plain")
	r.Header.Set("User-Agent", "landfall")
	resp, err := l.client.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", err
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusNoContent:
		return "", nil
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("the lookup service answered %d", resp.StatusCode)
	}
	region, err := parseAnswer(body)
	if err == nil && !l.regions[region] {
		err = fmt.Errorf("the lookup service answered %.64q, which is no region of this service", region)
	}
	return region, err
}

// parseAnswer reads a region: {"region": "eu-west"}, or the name alone.
func parseAnswer(body []byte) (string, error) {
	if len(body) > maxAnswer {
		return "", fmt.Errorf("the lookup service's answer is longer than %d bytes", maxAnswer)
	}
	text := strings.TrimSpace(string(body))
	if strings.HasPrefix(text, "{") {
		var answer struct {
			Region string `json:"region"`
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			return "", fmt.Errorf("the lookup service's answer: %w", err)
		}
		text = answer.Region
	}
	if text == "" {
		return "", errors.New("the lookup service's answer names no region")
	}
	return text, nil
}
