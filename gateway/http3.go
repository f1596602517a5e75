package gateway

import (
	"net/http"

	"landfall/configs"
)

// openHTTPS binds an HTTPS listener and, with listen.http3, the UDP port beside it.
func (n *Node) openHTTPS(c *configs.Config, addr string) error {
	cfg := n.certs.TLSConfig(c.TLS.MinVersion)
	at, err := n.server.AddHTTPS(addr, cfg, http.HandlerFunc(n.serveClient))
	if err != nil {
		return err
	}
	n.listeners = append(n.listeners, openListener{"https", at.String()})
	if !c.Listen.HTTP3 {
		return nil
	}
	if err := n.server.AddHTTP3(at, cfg); err != nil {
		return err
	}
	n.listeners = append(n.listeners, openListener{"http3", at.String()})
	return nil
}
