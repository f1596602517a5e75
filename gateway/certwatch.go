package gateway

import (
	"context"
	"fmt"
	"time"
)

const (
	// certLookEvery is how often a node looks at its own certificate; a handshake picks changed files up as often.
	certLookEvery = 10 * time.Second
	// certWarnBefore is how long before the end of the node's certificate, or of the fleet's CA, it warns; once a day.
	certWarnBefore = 14 * 24 * time.Hour
	certWarnEvery  = 24 * time.Hour
)

// certWatch remembers what was told of the certificates of the peer channel. It belongs to watchCerts.
type certWatch struct {
	warned map[string]time.Time // by what ends
	failed string
	until  time.Time // the certificate's end when it was last looked at
}

// watchCerts tells by metric and event when the certificate that the other nodes know this one by, or the CA, is about to
// end, when new files can't be used, and when they were taken. It runs until ctx ends.
func (n *Node) watchCerts(ctx context.Context) error {
	tick := time.NewTicker(certLookEvery)
	defer tick.Stop()
	w := certWatch{warned: map[string]time.Time{}}
	for {
		cert, ca := n.creds.Ends()
		n.metrics.certs.Peer(cert, ca)
		for _, e := range w.look(n.o.Now(), n.id.name, cert, ca, n.creds.Err()) {
			n.event(e[0], e[1], e[2])
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look is one look, and the events to tell.
func (w *certWatch) look(now time.Time, node string, cert, ca time.Time, err error) (events [][3]string) {
	tell := func(kind, subject, detail string) { events = append(events, [3]string{kind, subject, detail}) }
	if !w.until.IsZero() && !cert.Equal(w.until) {
		tell("cert.renewed", node, "the node's certificate now ends on "+cert.UTC().Format(time.RFC3339))
	}
	w.until = cert
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != w.failed && text != "" {
		tell("cert.failed", node, text)
	}
	w.failed = text
	for _, c := range []struct {
		what string
		end  time.Time
		do   string
	}{
		{node, cert, "issue a new one with landfall fleet cert and put it in place; no restart is needed"},
		{"ca", ca, "make a new one with landfall fleet init, and let mesh.tls.ca hold both while the nodes' certificates are replaced"},
	} {
		left := c.end.Sub(now)
		switch {
		case left > certWarnBefore:
			delete(w.warned, c.what)
			continue
		case now.Sub(w.warned[c.what]) < certWarnEvery:
			continue
		}
		w.warned[c.what] = now
		when := fmt.Sprintf("ends in %s, on %s", left.Round(time.Minute), c.end.UTC().Format(time.RFC3339))
		if left <= 0 {
			when = "ended on " + c.end.UTC().Format(time.RFC3339) + ": the other nodes refuse this one"
		}
		tell("cert.expiring", c.what, when+"; "+c.do)
	}
	return events
}
