package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ErrUnreachable says that no answer came from the node: it is not there, does not listen, or did not answer in time.
var ErrUnreachable = errors.New("the node can not be reached")

// Bounds of what a Client reads, in bytes.
const (
	maxAnswer      = 32 << 20
	maxErrorAnswer = 64 << 10
)

// Client calls the admin API of one node. Its methods may be called by many goroutines at once. They return a *Problem
// for an answer that is an error, ErrUnreachable when there was no answer, and the context's error when the caller
// cancelled it.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient makes a client of the API at base (http://127.0.0.1:9901; without a scheme http is meant). An empty token
// sends none. A nil hc is a client of its own that waits at most 5 s for a connection and 90 s for an answer's head.
// Redirects are not followed, so that the token goes nowhere else.
func NewClient(base, token string, hc *http.Client) *Client {
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	own := http.Client{}
	if hc != nil {
		own = *hc
	} else {
		own.Transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: 90 * time.Second, // longer than the longest wait for other nodes
			IdleConnTimeout:       30 * time.Second,
			MaxIdleConns:          8,
		}
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: strings.TrimRight(base, "/"), token: token, http: &own}
}

// Close closes the client's idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status is the fleet at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return fetch[Status](ctx, c, "/v1/status", nil)
}

// Regions are the regions, sorted by name.
func (c *Client) Regions(ctx context.Context) ([]Region, error) {
	v, err := fetch[regionList](ctx, c, "/v1/regions", nil)
	return v.Regions, err
}

// Nodes are the nodes, sorted by name.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	v, err := fetch[nodeList](ctx, c, "/v1/nodes", nil)
	return v.Nodes, err
}

// Services are the services, sorted by name.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	v, err := fetch[serviceList](ctx, c, "/v1/services", nil)
	return v.Services, err
}

// Pools are a service's pools, sorted by region.
func (c *Client) Pools(ctx context.Context, service string) ([]Pool, error) {
	v, err := fetch[poolList](ctx, c, "/v1/services/"+url.PathEscape(service)+"/pools", nil)
	return v.Pools, err
}

// Cache is the node's cache.
func (c *Client) Cache(ctx context.Context) (CacheStats, error) {
	return fetch[CacheStats](ctx, c, "/v1/cache", nil)
}

// Certs are the node's certificates.
func (c *Client) Certs(ctx context.Context) ([]Cert, error) {
	v, err := fetch[certList](ctx, c, "/v1/certs", nil)
	return v.Certs, err
}

// Config tells which config runs where.
func (c *Client) Config(ctx context.Context) (ConfigInfo, error) {
	return fetch[ConfigInfo](ctx, c, "/v1/config", nil)
}

// Drains are the drains in force.
func (c *Client) Drains(ctx context.Context) ([]Drain, error) {
	v, err := fetch[drainList](ctx, c, "/v1/drains", nil)
	return v.Drains, err
}

// Explain tells where a client goes for a URL or host name, and why. The zero client is one of whom nothing is known.
func (c *Client) Explain(ctx context.Context, target string, client netip.Addr) (Explanation, error) {
	query := url.Values{"url": {target}}
	if client.IsValid() {
		query.Set("client", client.String())
	}
	return fetch[Explanation](ctx, c, "/v1/explain", query)
}

// Drain drains a region, a node or an origin. The node waits up to wait for the others (0: its own default).
func (c *Client) Drain(ctx context.Context, target DrainTarget, spec DrainSpec, wait time.Duration) (DrainResult, error) {
	return c.setDrain(ctx, http.MethodPut, target, spec, wait)
}

// Undrain ends a drain. The node waits up to wait for the others (0: its own default).
func (c *Client) Undrain(ctx context.Context, target DrainTarget, wait time.Duration) (DrainResult, error) {
	return c.setDrain(ctx, http.MethodDelete, target, nil, wait)
}

func (c *Client) setDrain(ctx context.Context, method string, target DrainTarget, body any, wait time.Duration) (DrainResult, error) {
	path := "/v1/" + target.Kind + "s/" + url.PathEscape(target.Name)
	switch target.Kind {
	case DrainRegion, DrainNode, DrainOrigin:
	case DrainService:
		service, region, _ := strings.Cut(target.Name, "/")
		path = "/v1/services/" + url.PathEscape(service) + "/regions/" + url.PathEscape(region)
	default:
		return DrainResult{}, fmt.Errorf("%q can not be drained; a region, a node, an origin or a service in a region can", target.Kind)
	}
	return send[DrainResult](ctx, c, method, path+"/drain", waitQuery(wait), body)
}

// Purge invalidates cached objects on every node. The node waits for those of scope (WaitNode, WaitRegion or WaitAll, as
// is ""), up to wait (0: its own default); those that have not answered by then are in Missing, which is no error.
func (c *Client) Purge(ctx context.Context, p PurgeRequest, scope string, wait time.Duration) (PurgeResult, error) {
	query := waitQuery(wait)
	if scope != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("wait", scope)
	}
	return send[PurgeResult](ctx, c, http.MethodPost, "/v1/purge", query, p)
}

// PurgeByID is how a purge stands.
func (c *Client) PurgeByID(ctx context.Context, id string) (PurgeResult, error) {
	return fetch[PurgeResult](ctx, c, "/v1/purges/"+url.PathEscape(id), nil)
}

// Events are the node's events after since, oldest first: the newest limit when since is 0 (limit 0: the node's default).
func (c *Client) Events(ctx context.Context, since uint64, limit int) ([]Event, error) {
	query := url.Values{}
	if since > 0 {
		query.Set("since", strconv.FormatUint(since, 10))
	}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	v, err := fetch[eventList](ctx, c, "/v1/events", query)
	return v.Events, err
}

// OpenAPI is the API's description.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) { return c.text(ctx, "/v1/openapi.json") }

// Metrics are the node's metrics in the text form of Prometheus.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) { return c.text(ctx, "/metrics") }

// Health is nil when the process lives.
func (c *Client) Health(ctx context.Context) error {
	_, err := c.text(ctx, "/healthz")
	return err
}

// Ready is nil when the node may take traffic, and otherwise a Problem that names what it waits for.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.text(ctx, "/readyz")
	return err
}

func waitQuery(wait time.Duration) url.Values {
	if wait <= 0 {
		return nil
	}
	return url.Values{"timeout": {Duration(wait).String()}}
}

func fetch[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	return send[T](ctx, c, http.MethodGet, path, query, nil)
}

func send[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (T, error) {
	var out T
	resp, err := c.do(ctx, method, path, query, body, "application/json")
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	data, err := c.read(ctx, resp)
	if err != nil {
		return out, err
	}
	// Unlike the server, the client takes members that it does not know: they are a newer node's.
	if err := json.Unmarshal(data, &out); err != nil {
		return out, fmt.Errorf("%s %s answered something that is no answer of this API; is it a Landfall admin address? (%w)", method, c.base+path, err)
	}
	return out, nil
}

func (c *Client) text(ctx context.Context, path string) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, path, nil, nil, "*/*")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return c.read(ctx, resp)
}

// do sends a request; the answer is one of success, and its body is the caller's to close.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body any, accept string) (*http.Response, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var content io.Reader
	if body != nil {
		data, err := encode(body)
		if err != nil {
			return nil, fmt.Errorf("the request can not be written as JSON: %w", err)
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, fmt.Errorf("the admin address %q can not be used; write it like http://127.0.0.1:9901: %w", c.base, err)
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "landfall")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(resp)
}

func (c *Client) read(ctx context.Context, resp *http.Response) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, c.unreachable(ctx, err)
	case len(data) > maxAnswer:
		return nil, fmt.Errorf("the answer of %s is larger than %d bytes; is it a Landfall admin address?", c.base, maxAnswer)
	}
	return data, nil
}

// unreachable wraps a failed exchange. What the caller cancelled is not the node's failure; what ran out of time is.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	var urlError *url.Error
	if errors.As(err, &urlError) {
		err = urlError.Err // the address is in the text already
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.base, err)
}

// readProblem makes a Problem of an answer; what is no problem document did not come from this API.
func readProblem(resp *http.Response) *Problem {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorAnswer)) // a part will do: only a text is made of it
	return parseProblem(resp.StatusCode, resp.Header.Get("Content-Type"), data)
}

func parseProblem(status int, contentType string, data []byte) *Problem {
	var p Problem
	if strings.HasPrefix(contentType, "application/problem+json") && json.Unmarshal(data, &p) == nil && p.Title != "" {
		p.Status = status // of the answer, whatever the document says (RFC 9457 section 3.1.2)
		p.Title, p.Detail = clean(p.Title, maxErrorAnswer), clean(p.Detail, maxErrorAnswer)
		for i, e := range p.Errors {
			p.Errors[i] = FieldError{clean(e.Field, maxErrorAnswer), clean(e.Detail, maxErrorAnswer)}
		}
		return &p
	}
	title := http.StatusText(status)
	if title == "" {
		title = "Unexpected answer"
	}
	detail := fmt.Sprintf("the answer was %d %s and not of this API; is it a Landfall admin address?", status, title)
	if text := strings.TrimSpace(clean(string(data), 200)); text != "" {
		detail += " It says: " + text
	}
	return &Problem{Type: "about:blank", Title: title, Status: status, Detail: detail}
}
