package lab

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"
)

// Result is what one request of a Client came to.
type Result struct {
	Place   string
	Path    string
	Started time.Time
	Took    time.Duration
	Region  string // that served it, by X-Landfall-Region
	Visitor bool   // sent by a newcomer, who has no connection older than a second
	Retried bool   // it needed a second try, or the second address of a DNS answer
	Why     error  // what the first try came to, if Retried
	Err     error  // it failed for good
}

// Client is the people of one place. Half of their requests come from someone who stays and keeps a connection as long as
// it lives; the other half from newcomers who open one. All share the place's resolver and behave as browsers do:
//
//   - the addresses of a DNS answer are tried in order until one takes a connection; a connection that lives is used
//     again, whatever DNS says meanwhile; after GOAWAY or Connection: close the name is looked up anew
//   - a request whose connection breaks, or that stays without an answer, is sent again, elsewhere if there is another
//     address; so is one whose answer breaks off half-way, as a person would reload
//   - an answer is an answer: a 503 is what the person sees, nobody tries again
//
// Its methods are safe for concurrent use.
type Client struct {
	place string
	url   string // of the host, without a path
	now   func() time.Time
	net   *network

	mu      sync.Mutex
	stays   *browser
	visits  *browser
	visited time.Time // when visits began
}

// minRTT is what a client tells of a node at its own place.
const minRTT = time.Millisecond

// The patiences are extended by the simulated distance.
const (
	requestPatience = 10 * time.Second // for all tries of a request
	answerPatience  = 3 * time.Second  // for one answer, once a connection is there
	maxTries        = 3
	visitLasts      = time.Second
	maxBody         = 1 << 20
	maxInFlight     = 512
)

// NewClient makes the clients of the place that is nearest to home. roots sign the fleet's certificates.
func NewClient(f Fleet, home Region, roots *x509.CertPool, now func() time.Time) *Client {
	servers := f.NameServers(home)
	rtt, far := map[netip.Addr]time.Duration{}, time.Duration(0)
	for _, r := range f.Regions {
		far = max(far, time.Duration(home.RTT[r.Name])*time.Millisecond)
		if r.Name != home.Name {
			servers = append(servers, f.NameServers(r)...)
		}
		for _, n := range r.Nodes {
			rtt[n.Addr] = time.Duration(home.RTT[r.Name]) * time.Millisecond
		}
	}
	n := &network{
		resolver: newResolver(servers, home.Prefix, f.Host, now), host: f.Host, port: f.HTTPSPort, roots: roots, rtt: rtt,
		slack: handshakeTrips * far, now: now, open: map[*conn]struct{}{}, client: home.Client,
	}
	return &Client{place: home.Name, url: "https://" + f.Host, now: now, net: n, stays: newBrowser(n)}
}

// Roots reads the lab's CA.
func (f Fleet) Roots() (*x509.CertPool, error) {
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read the lab's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", f.CA)
	}
	return pool, nil
}

// Slow makes the way to a region's nodes longer or shorter than its distance says, for new connections.
func (c *Client) Slow(r Region, rtt time.Duration) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for _, n := range r.Nodes {
		c.net.rtt[n.Addr] = rtt
	}
	c.net.slack = max(c.net.slack, handshakeTrips*rtt)
}

// Close closes every connection.
func (c *Client) Close() { c.net.close() }

// paths are what the clients ask for: a page, a cached asset, an API, a slow answer. A quarter each. The asset is none that
// the banner and the README tell people to try, so that those begin cold.
func paths() []string { return []string{"/", "/assets/site.css", "/api/items", "/slow?ms=100"} }

// Run sends requests at a steady rate until stop is closed, then waits for those in flight. A slow answer does not slow the
// next request down (an open loop), so an outage shows in full. The end of ctx cuts everything; what it cut is not
// reported. report may be called by many goroutines at once.
func (c *Client) Run(ctx context.Context, stop <-chan struct{}, perSecond float64, rng *rand.Rand, report func(Result)) {
	var flying sync.WaitGroup
	defer flying.Wait()
	slots := make(chan struct{}, maxInFlight)
	tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer tick.Stop()
	all := paths()
	for {
		select {
		case <-ctx.Done():
			return
		case <-stop:
			return
		case <-tick.C:
		}
		path, visitor := all[rng.IntN(len(all))], rng.IntN(2) == 0
		select {
		case slots <- struct{}{}:
		default:
			report(Result{Place: c.place, Path: path, Started: c.now(), Visitor: visitor, Err: fmt.Errorf("more than %d requests were waiting: the fleet does not answer", maxInFlight)})
			continue
		}
		flying.Go(func() {
			defer func() { <-slots }()
			if res := c.Get(ctx, path, visitor); ctx.Err() == nil {
				report(res)
			}
		})
	}
}

// Get sends one request and sees it through, at most 10 s and some round trips.
func (c *Client) Get(ctx context.Context, path string, visitor bool) Result {
	res := Result{Place: c.place, Path: path, Started: c.now(), Visitor: visitor}
	ctx, cancel := context.WithTimeout(ctx, requestPatience+maxTries*c.net.patience())
	defer cancel()
	b := c.browser(visitor)
	for try := 1; ; try++ {
		a := b.attempt(ctx, c.url+path)
		if a.why != nil && res.Why == nil {
			res.Retried, res.Why = true, a.why
		}
		res.Region, res.Err = a.region, a.err
		if a.err == nil || !a.again || try == maxTries || ctx.Err() != nil {
			break
		}
		if res.Why == nil {
			res.Retried, res.Why = true, a.err
		}
		b.avoid(a)
	}
	res.Took = c.now().Sub(res.Started)
	return res
}

// browser is who sends the next request.
func (c *Client) browser(visitor bool) *browser {
	if !visitor {
		return c.stays
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); c.visits == nil || now.Sub(c.visited) >= visitLasts {
		if c.visits != nil {
			c.visits.leave()
		}
		c.visits, c.visited = newBrowser(c.net), now
	}
	return c.visits
}

// browser is one connection pool, and a memory of addresses that failed.
type browser struct {
	net *network

	mu   sync.Mutex
	pool *http.Transport
	bad  map[netip.Addr]time.Time // addresses that failed, and when
}

// badFor is how long a browser tries an address that failed after all others.
const badFor = 5 * time.Second

func newBrowser(n *network) *browser {
	b := &browser{net: n, bad: map[netip.Addr]time.Time{}}
	b.pool = b.newPool()
	return b
}

func (b *browser) newPool() *http.Transport {
	return &http.Transport{
		DialTLSContext:    b.dial,
		ForceAttemptHTTP2: true,
		// A connection that went silent is found by a ping.
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 2 * time.Second},
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     5 * time.Second, // also what ends a connection that was busy when its browser left
	}
}

// attempt is what one try came to.
type attempt struct {
	pool   *http.Transport
	conn   *conn // nil: none could be had
	header http.Header
	region string
	again  bool  // it failed so that a browser tries again
	why    error // the first address failed and the connection went to another
	err    error
}

// errSilent is the cause that ends a try whose connection stays silent.
type errSilent time.Duration

func (e errSilent) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(e)) }

// attempt sends the request on a connection of the pool, or a new one.
func (b *browser) attempt(ctx context.Context, url string) (a attempt) {
	b.mu.Lock()
	a.pool = b.pool
	b.mu.Unlock()
	a.header = http.Header{"User-Agent": {"landfall-lab"}, "X-Forwarded-For": {b.net.client.String()}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var silence *time.Timer
	patience := answerPatience + b.net.patience()
	var mu sync.Mutex // net/http may call GotConn more than once when it tries again by itself
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		mu.Lock()
		defer mu.Unlock()
		if a.conn = under(info.Conn); a.conn != nil && !info.Reused {
			a.why = a.conn.why
		}
		if a.conn != nil {
			a.header.Set("X-Client-RTT", strconv.FormatFloat(float64(max(a.conn.rtt, minRTT))/float64(time.Millisecond), 'f', -1, 64))
		}
		if silence == nil {
			silence = time.AfterFunc(patience, func() { cancel(errSilent(patience)) })
		}
	}})
	err := a.exchange(ctx, url)
	mu.Lock()
	defer mu.Unlock()
	if silence != nil {
		silence.Stop()
	}
	if err == nil {
		return a
	}
	if silent, ok := context.Cause(ctx).(errSilent); ok {
		err = silent
	}
	var answered statusError
	a.again = a.conn != nil && !errors.As(err, &answered)
	if a.conn != nil {
		err = fmt.Errorf("%s: %w", a.conn.addr, err)
	}
	a.err = err
	return a
}

// statusError is an answer that is none.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

// exchange sends the request and reads the answer to its end.
func (a *attempt) exchange(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header = a.header
	resp, err := a.pool.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	a.region = resp.Header.Get("X-Landfall-Region")
	if resp.StatusCode != http.StatusOK {
		return statusError(resp.StatusCode)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	return nil
}

// avoid makes the browser leave the connection that failed an attempt, and try its address last for a while.
func (b *browser) avoid(a attempt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad[a.conn.addr] = b.net.now()
	if b.pool == a.pool {
		b.pool.CloseIdleConnections()
		b.pool = b.newPool()
	}
}

// leave gives up the connections that nothing uses any more.
func (b *browser) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pool.CloseIdleConnections()
}
