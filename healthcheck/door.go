package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"landfall/routing"
)

// Door is a region's front door for one service: what a client of it would meet.
type Door struct {
	Region, Service string
	Host            string // that the service has, in lower case
	TLS             bool
	Port            uint16
	Nodes           []DoorNode // the region's, asked in turn
}

// DoorNode is one node behind a front door.
type DoorNode struct {
	Name  string
	Addrs []netip.Addr // as clients are told them
}

// The results of asking a front door: a closed list, as metrics see it.
const (
	doorUp      = "up"      // it answers, and the pool behind it too
	doorUnknown = "unknown" // it answers; nothing is known of the pool
	doorDown    = "down"    // it answers that its pool is down
	doorConnect = "connect" // no connection, TLS included
	doorTimeout = "timeout"
	doorAnswer  = "answer" // what came was no answer of this fleet, or of another region's node
)

// doorResult is how one asking ended.
type doorResult struct {
	result string
	detail string
	node   string
	at     time.Time
}

// silent tells that nobody of the fleet answered: the observer's own line may be at fault.
func (r doorResult) silent() bool {
	return r.result == doorConnect || r.result == doorTimeout || r.result == doorAnswer
}

type doorAddrKey struct{}

// newDoorTransport makes a connection for each asking, since that is what a new client meets. The certificate must bear
// the host and be in its time; who issued it isn't asked, as private CAs are common, and the answer's own seal proves who
// gave it.
func newDoorTransport(now func() time.Time) *http.Transport {
	dialer := &net.Dialer{}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			addr, _ := ctx.Value(doorAddrKey{}).(string)
			return dialer.DialContext(ctx, network, addr)
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxProbeHeader,
		TLSHandshakeTimeout:    time.Minute, // the asking's own timeout is shorter
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true,
			VerifyConnection: func(cs tls.ConnectionState) error {
				leaf := cs.PeerCertificates[0] // a server always shows one
				switch at := now(); {
				case at.After(leaf.NotAfter):
					return fmt.Errorf("its certificate ended on %s", leaf.NotAfter.UTC().Format(time.RFC3339))
				case at.Before(leaf.NotBefore):
					return fmt.Errorf("its certificate begins only on %s", leaf.NotBefore.UTC().Format(time.RFC3339))
				}
				return leaf.VerifyHostname(cs.ServerName)
			},
		},
	}
}

// askDoor asks a front door once, at one node's address.
func askDoor(ctx context.Context, rt http.RoundTripper, p *Passes, d Door, node string, addr netip.Addr, timeout time.Duration, now func() time.Time) doorResult {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	at := netip.AddrPortFrom(addr, d.Port).String()
	out := func(result, detail string) doorResult { return doorResult{result, detail, node, now()} }
	scheme := "http"
	if d.TLS {
		scheme = "https"
	}
	url := scheme + "://" + net.JoinHostPort(d.Host, strconv.Itoa(int(d.Port))) + DoorPath
	r, err := http.NewRequestWithContext(context.WithValue(ctx, doorAddrKey{}, at), http.MethodGet, url, nil)
	if err != nil {
		return out(doorConnect, err.Error())
	}
	pass, nonce := p.Ask(d.Host, now())
	r.Header.Set(DoorHeader, pass)
	r.Header.Set("User-Agent", probeUserAgent)
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return out(doorFailed(ctx, err, at, timeout))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return out(doorFailed(ctx, err, at, timeout))
	}
	a, err := p.Open(nonce, resp.Header.Get(DoorHeader), body)
	switch {
	case err != nil:
		return out(doorAnswer, fmt.Sprintf("%s answered %d: %v", at, resp.StatusCode, err))
	case a.Region != d.Region || a.Service != d.Service:
		return out(doorAnswer, fmt.Sprintf("%s answered for service %s in region %s", at, a.Service, a.Region))
	}
	detail := a.Node + " answered " + a.State
	if a.Detail != "" {
		detail += ": " + a.Detail
	}
	switch a.State {
	case routing.Up.String():
		return out(doorUp, detail)
	case routing.Down.String():
		return out(doorDown, detail)
	}
	return out(doorUnknown, detail)
}

func doorFailed(ctx context.Context, err error, at string, timeout time.Duration) (result, detail string) {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return doorTimeout, fmt.Sprintf("%s had no answer within %s", at, timeout)
	}
	return doorConnect, fmt.Sprintf("%s: %v", at, err)
}
