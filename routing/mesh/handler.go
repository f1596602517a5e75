package mesh

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxExchanges bounds the register exchanges that are answered at a time.
const maxExchanges = 8

// Handler answers the peers' beats and register exchanges, at /mesh/v1/beat and /mesh/v1/registers. Mount it only where
// the caller has verified the client's certificate against the fleet's CA; the handler then checks that the certificate
// bears the name that the sender claims.
func (m *Mesh) Handler() http.Handler {
	mux := http.NewServeMux()
	slots := make(chan struct{}, maxExchanges)
	mux.HandleFunc("POST "+pathBeat, m.serveBeat)
	mux.HandleFunc("POST "+pathRegisters, func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			m.serveRegisters(w, r)
		case <-r.Context().Done():
		}
	})
	return mux
}

// errIdentity is why a sender is not believed.
var errIdentity = errors.New("the certificate does not bear the sender's name")

// identify checks who a request says that it is from.
func (m *Mesh) identify(r *http.Request, fleet, node string) error {
	if fleet != m.opt.Fleet {
		m.metrics.refused.WithLabelValues("fleet").Inc()
		return fmt.Errorf("this node belongs to fleet %q", m.opt.Fleet)
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && r.TLS.PeerCertificates[0].VerifyHostname(node) != nil {
		m.metrics.refused.WithLabelValues("identity").Inc()
		return errIdentity
	}
	return nil
}

func (m *Mesh) readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		m.metrics.refused.WithLabelValues("malformed").Inc()
		http.Error(w, "the body is cut short or too large", http.StatusRequestEntityTooLarge)
		return nil, false
	}
	return body, true
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(encode(v)) // the peer notices a cut answer itself
}

func (m *Mesh) serveBeat(w http.ResponseWriter, r *http.Request) {
	m.metrics.received("beat")
	body, ok := m.readBody(w, r, maxBeat)
	if !ok {
		return
	}
	b, i, err := decodeBeat(body)
	if err != nil {
		m.metrics.refused.WithLabelValues("malformed").Inc()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := m.identify(r, b.Fleet, b.Node); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if err := m.takeBeat(b, i); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	answer, _, _ := m.makeBeat(b.Node)
	answerJSON(w, answer)
}

// takeBeat learns from a peer's beat. A node that gossip hasn't told of yet becomes a member by it: its certificate says
// that it is one, and gossip may be slow to believe in a node that moved.
func (m *Mesh) takeBeat(b beat, i info) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b.Node == m.opt.Node {
		if now := m.opt.Now(); i.Boot != m.self.Boot && now.Sub(m.duplicateSaid) >= sayEvery {
			m.duplicateSaid = now
			m.duplicate(b.Node, "boot ids "+m.self.Boot+" and "+i.Boot)
		}
		return fmt.Errorf("this node is %s too", b.Node)
	}
	if m.members[b.Node] == nil && len(m.members) >= MaxMembers-1 {
		m.metrics.refused.WithLabelValues("meta").Inc()
		return errTooMany
	}
	mb := m.member(b.Node, i)
	m.settle(mb, m.heard(mb, b, i))
	if mb.reach.standing == unreachable {
		kick(m.beatKicks[b.Node]) // it speaks: see at once whether it can be reached again
	}
	return nil
}
