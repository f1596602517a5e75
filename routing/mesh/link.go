package mesh

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// PeerSuffix follows a node's name in the host of a request to it, so that each node has connections of its own. It lies
// under a domain that never resolves (RFC 6761 section 6.4): the client's transport asks PeerAddr instead.
const PeerSuffix = ".peer.invalid"

const pathLink = "/mesh/v1/link"

// Bounds of links.
const (
	linkQueue    = 2048            // messages that wait for a slow peer; past it the link is given up
	linkDialWait = 3 * time.Second // for the connection, TLS and both greetings
	linkEndWait  = time.Second     // for what is queued to leave a link that ends
	maxGreetings = 64              // strangers that are listened to at a time
)

type peerNameKey struct{}

// PeerName is the node that a request of the mesh is meant for: the name that its certificate must bear.
func PeerName(ctx context.Context) (string, bool) {
	name, ok := ctx.Value(peerNameKey{}).(string)
	return name, ok
}

// pipe is an open link: one HTTP/2 stream that lasts, with messages both ways. The core knows it by its id.
type pipe struct {
	id       uint64
	peer     string
	accepted bool
	queue    chan message
	ended    chan struct{} // closed when nothing more is to be queued
	endOnce  sync.Once
	drained  chan struct{} // closed when the writer is done
	left     atomic.Int64  // messages queued and not written
	abort    func()
}

func newPipe(id uint64, peer string, accepted bool, abort func()) *pipe {
	return &pipe{
		id: id, peer: peer, accepted: accepted, abort: abort,
		queue: make(chan message, linkQueue), ended: make(chan struct{}), drained: make(chan struct{}),
	}
}

// put queues a message. It never blocks: a peer that takes nothing loses its link.
func (p *pipe) put(m message) {
	p.left.Add(1)
	select {
	case p.queue <- m:
	default:
		p.left.Add(-1)
		p.abort()
	}
}

// end lets the writer finish what is queued, then ends the link.
func (p *pipe) end() { p.endOnce.Do(func() { close(p.ended) }) }

// write sends what is queued until the link ends.
func (p *pipe) write(w io.Writer, flush func() error, metrics *Metrics) {
	defer close(p.drained)
	var body, out []byte
	for {
		var m message
		select {
		case m = <-p.queue:
		default:
			select {
			case m = <-p.queue:
			case <-p.ended:
				return
			}
		}
		out = out[:0]
		taken := int64(0)
		for m != nil {
			body = appendMessage(body[:0], m)
			out = append(binary.AppendUvarint(out, uint64(len(body))), body...)
			metrics.sentMessage(m.kind())
			taken++
			m = nil
			if len(out) < maxFrame {
				select {
				case m = <-p.queue:
				default:
				}
			}
		}
		_, err := w.Write(out)
		if err == nil {
			err = flush()
		}
		p.left.Add(-taken)
		metrics.traffic.out.Add(float64(len(out)))
		if err != nil {
			p.abort()
			return
		}
	}
}

// readFrame reads one length and that many bytes. The memory it takes grows with what has come, not with what is claimed.
func readFrame(r *bufio.Reader, limit uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("a message of %d bytes is longer than %d", n, limit)
	}
	if n <= 64<<10 {
		b := make([]byte, n)
		_, err = io.ReadFull(r, b)
		return b, err
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && uint64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// read hands messages to the core until the link ends, and tells how it did.
func (m *Mesh) read(p *pipe, r *bufio.Reader) {
	for {
		raw, err := readFrame(r, maxFrame)
		if err != nil {
			m.step(func(c *core, now instant) *effects {
				return c.linkDown(now, p.id, endedLost, "the connection broke: "+err.Error())
			})
			return
		}
		m.metrics.traffic.in.Add(float64(len(raw) + 2))
		msg, err := decodeMessage(raw)
		if err != nil {
			m.metrics.refused.WithLabelValues("malformed").Inc()
			m.log.Warn("a peer sent what is not understood; its link is ended", "peer", p.peer, "error", err)
			m.step(func(c *core, now instant) *effects { return c.linkDown(now, p.id, endedLost, err.Error()) })
			return
		}
		if msg == nil {
			m.metrics.refused.WithLabelValues("kind").Inc() // of a later version
			continue
		}
		m.metrics.receivedMessage(msg.kind())
		m.step(func(c *core, now instant) *effects { return c.message(now, p.id, msg) })
		select {
		case <-p.ended:
			return
		default:
		}
	}
}

// dial makes a link to a peer and serves it until it ends.
func (m *Mesh) dial(ctx context.Context, peer string) {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, peerNameKey{}, peer))
	defer cancel(nil)
	fail := func(how ending, why string) {
		if ctx.Err() == nil || errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			m.log.Debug("no link", "peer", peer, "why", why)
		}
		m.step(func(c *core, now instant) *effects { return c.dialFailed(now, peer, how, why) })
	}
	hello, ok := m.greeting()
	if !ok {
		return
	}
	slow := time.AfterFunc(linkDialWait, func() { cancel(context.DeadlineExceeded) })
	defer slow.Stop()
	body, w := io.Pipe()
	defer func() { _ = w.Close() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+peer+PeerSuffix+pathLink, body)
	if err != nil {
		fail(dialRefused, err.Error())
		return
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	go func() { _, _ = w.Write(hello) }() // ends with the pipe, at the latest when this function does
	resp, err := m.opt.Client.Do(req)
	if err != nil {
		fail(howFailed(ctx, err), err.Error())
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
		m.turnedDown(peer, resp.StatusCode, string(text))
		fail(dialRefused, fmt.Sprintf("it answers %d: %s", resp.StatusCode, text))
		return
	}
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		if other := foreign(resp.TLS.PeerCertificates[0], m.opt.Fleet); other != "" {
			fail(dialRefused, fmt.Sprintf("the certificate of %s is for fleet %q, this is fleet %q", peer, other, m.opt.Fleet))
			return
		}
	}
	r := bufio.NewReader(resp.Body)
	raw, err := readFrame(r, maxGreeting)
	if err != nil {
		fail(howFailed(ctx, err), err.Error())
		return
	}
	g, i, err := decodeGreeting(raw)
	if err == nil && (g.Node != peer || g.Fleet != m.opt.Fleet) {
		err = fmt.Errorf("at its address answers %s of fleet %q", g.Node, g.Fleet)
	}
	if err != nil {
		fail(dialRefused, err.Error())
		return
	}
	if !slow.Stop() {
		fail(dialSilent, "no answer within "+linkDialWait.String())
		return
	}
	// Until its body ends a request does not look at its context: a stream would outlive it for as long as the peer beats.
	defer context.AfterFunc(ctx, func() { _ = w.CloseWithError(context.Cause(ctx)) })()
	p := m.open(peer, i, g.Speaks, false, func() { cancel(context.Canceled) })
	var writer sync.WaitGroup
	writer.Go(func() { p.write(w, func() error { return nil }, m.metrics) })
	writer.Go(func() {
		<-p.ended
		p.lingering(ctx.Done())
		cancel(context.Canceled)
	})
	m.read(p, r)
	m.shut(p)
	writer.Wait()
}

// lingering gives the writer a moment to send what is queued.
func (p *pipe) lingering(stop <-chan struct{}) {
	timer := time.NewTimer(linkEndWait)
	defer timer.Stop()
	select {
	case <-p.drained:
	case <-timer.C:
	case <-stop:
	}
}

func howFailed(ctx context.Context, err error) ending {
	var timeout interface{ Timeout() bool }
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return dialSilent
	}
	return dialRefused
}

// open makes a pipe known to the core.
func (m *Mesh) open(peer string, i info, speaks int, accepted bool, abort func()) *pipe {
	m.mu.Lock()
	m.nextLink++
	p := newPipe(m.nextLink, peer, accepted, abort)
	m.pipes[p.id] = p
	m.mu.Unlock()
	m.step(func(c *core, now instant) *effects { return c.linkUp(now, p.id, peer, i, speaks, !accepted) })
	return p
}

// shut forgets a pipe whose reading has ended.
func (m *Mesh) shut(p *pipe) {
	p.end()
	m.mu.Lock()
	delete(m.pipes, p.id)
	m.mu.Unlock()
}

// Handler answers the peers at /mesh/v1/link. Mount it only where the caller has verified the client's certificate
// against the fleet's CA; the handler then checks that the certificate bears the name that the sender claims.
func (m *Mesh) Handler() http.Handler {
	mux := http.NewServeMux()
	slots := make(chan struct{}, maxGreetings)
	mux.HandleFunc("POST "+pathLink, func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			m.serveLink(w, r, sync.OnceFunc(func() { <-slots }))
		case <-r.Context().Done():
		}
	})
	return mux
}

func (m *Mesh) serveLink(w http.ResponseWriter, r *http.Request, greeted func()) {
	defer greeted()
	if !m.links.enter() {
		http.Error(w, "this node takes no links now: it starts or stops", http.StatusServiceUnavailable)
		return
	}
	defer m.links.leave()
	slow := time.AfterFunc(linkDialWait, func() { _ = r.Body.Close() })
	br := bufio.NewReader(r.Body)
	raw, err := readFrame(br, maxGreeting)
	if !slow.Stop() || err != nil {
		m.metrics.refused.WithLabelValues("malformed").Inc()
		http.Error(w, "no greeting came", http.StatusBadRequest)
		return
	}
	g, i, err := decodeGreeting(raw)
	if err != nil {
		m.metrics.refused.WithLabelValues("malformed").Inc()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if no := m.admit(r, g, i); no != nil {
		m.metrics.refused.WithLabelValues(no.reason).Inc()
		http.Error(w, no.why, no.code)
		return
	}
	greeted()
	hello, ok := m.greeting()
	if !ok {
		return
	}
	rc := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	if _, err := w.Write(hello); err != nil || rc.Flush() != nil {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	p := m.open(g.Node, i, g.Speaks, true, cancel)
	var parts sync.WaitGroup
	parts.Go(func() { p.write(w, rc.Flush, m.metrics) })
	parts.Go(func() { // lets the read below return
		select {
		case <-p.ended:
			p.lingering(ctx.Done())
		case <-ctx.Done():
		case <-m.links.over:
		}
		p.end()
		_ = r.Body.Close()
	})
	m.read(p, br)
	m.shut(p)
	cancel()
	parts.Wait()
}
