package upstream

//lint:file-ignore SA1019 net/http's Transport refuses the :protocol field of an extended CONNECT, so there is nothing to use instead

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// sockets carry WebSockets to an origin over HTTP/2, by extended CONNECT (RFC 8441), which net/http's own transport has no
// way to say. An origin that does not offer it is asked over HTTP/1.1, once that is known at once.
type sockets struct {
	transport *http2.Transport
	missing   atomic.Bool // the origin does not offer it
}

// newSockets are those of a pool whose origins are spoken to in HTTP/2 alone; nil for any other pool.
func newSockets(o PoolOptions, config *tls.Config, scheme string) *sockets {
	if o.HTTP != "2" && o.HTTP != "h2c" || o.ProxyProtocol == "v1" || o.ProxyProtocol == "v2" {
		return nil // a connection that names its client carries nobody else's streams
	}
	dial := dialFunc(o.Dial)
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	return &sockets{transport: &http2.Transport{
		AllowHTTP: true, DisableCompression: true, IdleConnTimeout: idleConnTimeout, MaxHeaderListSize: maxResponseHeader,
		ReadIdleTimeout: h2Ping, PingTimeout: h2PingTimeout, WriteByteTimeout: h2WriteTimeout,
		DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			ctx = context.WithValue(ctx, dialKey{}, &dialSettings{connect: settingsOf(ctx).connect})
			if scheme == "http" {
				return dialPlain(ctx, dial, network, addr)
			}
			return dialTLS(ctx, dial, config, network, addr)
		},
	}}
}

func (s *sockets) closeIdle() { s.transport.CloseIdleConnections() }

// errNotOffered is what x/net/http2 says of an origin that has not SETTINGS_ENABLE_CONNECT_PROTOCOL (its own is not exported).
const errNotOffered = "extended connect not supported by peer"

// open sends r, an upgrade to WebSocket over HTTP/1.1, as an extended CONNECT, and makes the response what it would have
// been over HTTP/1.1. offered is false when the origin has to be asked in the old way.
func (s *sockets) open(a *attempt, r *http.Request) (resp *http.Response, offered bool, err error) {
	// Once it is open the stream lasts as long as its users want, not as the request's timeouts say.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	stop := context.AfterFunc(r.Context(), func() { cancel(context.Cause(r.Context())) })
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { a.wroteRequest(httptrace.WroteRequestInfo{}) }})
	body, feed := io.Pipe()
	out := r.WithContext(ctx)
	out.Method, out.Body, out.ContentLength, out.GetBody = http.MethodConnect, body, -1, nil
	out.Header = r.Header.Clone()
	key := out.Header.Get("Sec-Websocket-Key")
	for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Key"} {
		delete(out.Header, name)
	}
	out.Header[":protocol"] = []string{"websocket"}
	resp, err = s.transport.RoundTrip(out)
	if err != nil {
		stop()
		cancel(nil)
		_ = feed.Close()
		if strings.Contains(err.Error(), errNotOffered) {
			s.missing.Store(true)
			return nil, false, nil
		}
		return nil, true, err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 { // a refusal, whose body is a body
		_ = feed.Close()
		return resp, true, nil
	}
	if !stop() {
		cancel(nil)
		_ = resp.Body.Close()
		return nil, true, context.Cause(r.Context())
	}
	resp.StatusCode, resp.Status = http.StatusSwitchingProtocols, "101 Switching Protocols"
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 section 4.2.2
	resp.Header.Set("Sec-Websocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	resp.Body = &socketStream{resp.Body, feed, cancel}
	return resp, true, nil
}

// socketStream is a stream of HTTP/2 in place of a connection.
type socketStream struct {
	io.ReadCloser
	feed   *io.PipeWriter
	cancel context.CancelCauseFunc
}

func (s *socketStream) Write(p []byte) (int, error) { return s.feed.Write(p) }
func (s *socketStream) CloseWrite() error           { return s.feed.Close() }

func (s *socketStream) Close() error {
	err := errors.Join(s.feed.Close(), s.ReadCloser.Close())
	s.cancel(nil)
	return err
}
