package proxy

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// serveUpgrade serves a request that asks for another protocol (WebSocket and its like). Nothing is cached; after a 101
// the node copies bytes both ways until either side ends or both fall silent.
func (x *exchange) serveUpgrade() *refusal {
	x.clean(x.in.Header)
	in, clientSide := x.in, x.in.Body
	if x.head.stream { // the body is the client's side of the connection
		in = in.WithContext(in.Context())
		in.Body, in.ContentLength = nil, 0
	}
	key := x.socketKey()
	body := watchBody(in)
	defer func() { x.received += body.finish(x.hangUp) }()
	resp, tr, err := x.fetch(in, "", body)
	x.trail.Store(&tr)
	if err != nil {
		return x.p.refusalFor(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		inbound(resp, false)
		x.stream(resp)
		return nil
	}
	origin, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		_ = resp.Body.Close()
		return &refusal{reason: badGateway, text: "the origin's connection can't be taken over", cause: errNoHijack}
	}
	defer origin.Close()
	if key != "" && resp.Header.Get(headerAccept) != acceptOf(key) {
		return &refusal{reason: badGateway, text: "the origin did not agree to the WebSocket", cause: errNoAccept}
	}
	upgrade := resp.Header.Get("Upgrade")
	inbound(resp, false)
	h := x.w.Header()
	for name, values := range resp.Header {
		h[name] = values
	}
	if x.head.stream {
		delete(h, headerAccept)
		x.w.WriteHeader(http.StatusOK)
		x.w.Flush()
		x.pipe(tunnel{read: clientSide, write: flushWriter{x.w}, close: clientSide.Close}, origin)
		return nil
	}
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", upgrade)
	client, buffered, err := x.hijack()
	if err != nil {
		return &refusal{reason: badGateway, text: "this connection can't be upgraded", cause: err}
	}
	defer client.Close()
	x.pipe(bufferedConn{client, buffered.Reader}, origin)
	return nil
}

// The fields of WebSocket's opening handshake (RFC 6455 section 11.3).
const (
	headerKey    = "Sec-Websocket-Key"
	headerAccept = "Sec-Websocket-Accept"
)

var errNoAccept = errors.New("its Sec-WebSocket-Accept does not match")

// socketKey gives the request of a WebSocket over HTTP/2, which has no such key (RFC 8441 section 5), the one that HTTP/1.1
// asks for on the way to the origin.
func (x *exchange) socketKey() string {
	if !x.head.stream {
		return ""
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	key := base64.StdEncoding.EncodeToString(b[:])
	x.in.Header.Set(headerKey, key)
	return key
}

// acceptOf is the origin's proof that it read the key (RFC 6455 section 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// hijack takes the client's connection over and writes the 101 on it.
func (x *exchange) hijack() (net.Conn, *bufio.ReadWriter, error) {
	header := x.w.Header().Clone()
	conn, buffered, err := http.NewResponseController(x.w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.w.wrote, x.w.status = true, http.StatusSwitchingProtocols
	err = errors.Join(conn.SetDeadline(time.Time{}), writeSwitch(buffered.Writer, header))
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, buffered, nil
}

func writeSwitch(w *bufio.Writer, h http.Header) error {
	_, err := w.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	return errors.Join(err, h.Write(w), func() error { _, err := w.WriteString("\r\n"); return err }(), w.Flush())
}

// bufferedConn reads first what the server had read ahead.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// pipe copies both ways until one direction ends, or neither had traffic for the route's idle time.
func (x *exchange) pipe(client, origin io.ReadWriteCloser) {
	idle := x.match.route.Timeout.Idle.D()
	closeBoth := func() { _ = client.Close(); _ = origin.Close() }
	timer := time.AfterFunc(idle, closeBoth)
	defer timer.Stop()
	one := func(dst io.Writer, src io.Reader, count *int64) {
		buf := x.p.buffers.Get().(*[]byte)
		defer x.p.buffers.Put(buf)
		for {
			n, err := src.Read(*buf)
			if n > 0 {
				timer.Reset(idle)
				*count += int64(n)
				if _, werr := dst.Write((*buf)[:n]); werr != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	toClient := io.Writer(client)
	if isWebSocket(x.head.upgrade) && x.conn.BeforeCut != nil {
		last := &farewell{dst: client}
		toClient = last
		defer x.conn.BeforeCut(last.say)()
	}
	var up, down int64
	done := make(chan struct{})
	go func() { one(origin, client, &up); closeBoth(); close(done) }()
	one(toClient, origin, &down)
	closeBoth()
	<-done
	x.w.bytes += down
	x.received += up
}

// serveTunnel serves an upgrade that another node forwards. HTTP/2 has no Upgrade, so the forwarding node sends a POST
// whose body is the client's side of the connection, and the body of the 200 is the origin's side.
func (x *exchange) serveTunnel() *refusal {
	clientSide := x.in.Body
	in := x.in.WithContext(x.in.Context())
	in.Body, in.ContentLength = nil, 0
	resp, tr, err := x.fetch(in, "", &bodyWatch{})
	x.trail.Store(&tr)
	if err != nil {
		return x.p.refusalFor(err)
	}
	origin, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		inbound(resp, false)
		x.stream(resp)
		return nil
	}
	upgrade := resp.Header.Get("Upgrade")
	inbound(resp, false)
	h := x.w.Header()
	for name, values := range resp.Header {
		h[name] = values
	}
	h.Set(headerStatus, "101")
	h.Set(headerUpgrade, upgrade)
	x.w.WriteHeader(http.StatusOK)
	x.w.Flush()
	x.pipe(tunnel{read: clientSide, write: flushWriter{x.w}, close: clientSide.Close}, origin)
	return nil
}

// untunnel makes a peer's answer to a tunnelled upgrade look like the origin's own 101, with a body to write to.
func untunnel(resp *http.Response, toPeer *io.PipeWriter) {
	if resp.Header.Get(headerStatus) != "101" {
		_ = toPeer.Close()
		return
	}
	resp.StatusCode = http.StatusSwitchingProtocols
	resp.Header.Set("Upgrade", resp.Header.Get(headerUpgrade))
	body := resp.Body
	resp.Body = tunnel{read: body, write: toPeer, close: func() error { return errors.Join(toPeer.Close(), body.Close()) }}
}

// tunnel is a connection made of a stream each way.
type tunnel struct {
	read  io.Reader
	write io.Writer
	close func() error
}

func (t tunnel) Read(p []byte) (int, error)  { return t.read.Read(p) }
func (t tunnel) Write(p []byte) (int, error) { return t.write.Write(p) }
func (t tunnel) Close() error                { return t.close() }

type flushWriter struct{ w *responseWriter }

func (f flushWriter) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.w.Flush()
	return n, err
}
