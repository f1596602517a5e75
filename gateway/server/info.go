package server

import (
	"context"
	"net/netip"
	"sync"
)

// The listeners' names in ConnInfo.Listener, metrics and logs.
const (
	ListenerHTTP  = "http"
	ListenerHTTPS = "https"
	ListenerPeer  = "peer"
)

// ConnInfo tells a handler how its request came in.
type ConnInfo struct {
	Listener   string         // ListenerHTTP, ListenerHTTPS or ListenerPeer
	TLS        bool           // the connection is encrypted
	LocalAddr  netip.AddrPort // the node's end of the connection
	RemoteAddr netip.AddrPort // the other end: the client, or what stands in front of it
	PeerName   string         // on the peer listener: the node's name, from its verified certificate
	ID         string         // the request's id: 16 random bytes in hexadecimal

	srv *Server
}

// BeforeCut has f called, by a goroutine of its own, when a stop's grace is over and what is left is to be cut in a moment:
// an upgraded connection can say goodbye then. cancel ends the wait for it and must be called. Not to be called on the
// zero value.
func (i ConnInfo) BeforeCut(f func()) (cancel func()) {
	s := i.srv
	s.upgraded.Add(1)
	stop := context.AfterFunc(s.going, f)
	return sync.OnceFunc(func() {
		stop()
		s.upgraded.Add(-1)
	})
}

type (
	infoKey struct{}
	connKey struct{}
)

// Info returns how the request with this context came in; false when it did not come through a Server.
func Info(ctx context.Context) (ConnInfo, bool) {
	info, ok := ctx.Value(infoKey{}).(*ConnInfo)
	if !ok {
		return ConnInfo{}, false
	}
	return *info, true
}
