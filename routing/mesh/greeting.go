package mesh

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// maxGreeting bounds a greeting in bytes.
const maxGreeting = 8 << 10

// greeting is the first message of a link, each way. It is JSON: whatever else changes, two versions must be able to
// tell each other that they don't fit. Unknown fields are skipped.
type greeting struct {
	Speaks int      `json:"speaks"` // the newest version of the protocol that the sender speaks,
	Oldest int      `json:"oldest"` // and the oldest
	Fleet  string   `json:"fleet"`
	Node   string   `json:"node"`
	Meta   []byte   `json:"meta"`           // as in gossip
	Keys   []string `json:"keys,omitempty"` // fingerprints of the gossip keys
}

// KeyPrint is a short fingerprint of a gossip key: enough to tell two keys of a fleet apart, useless to find one.
func KeyPrint(fleet string, key []byte) string {
	sum := sha256.Sum256(append([]byte("landfall mesh key\x00"+fleet+"\x00"), key...))
	return hex.EncodeToString(sum[:4])
}

func keyPrints(fleet string, keys [][]byte) []string {
	var out []string
	for _, k := range keys {
		out = append(out, KeyPrint(fleet, k))
	}
	return out
}

// greeting is this node's, as a frame; false when the mesh is closed.
func (m *Mesh) greeting() ([]byte, bool) {
	m.mu.Lock()
	g := greeting{
		Speaks: protoVersion, Oldest: protoOldest, Fleet: m.opt.Fleet, Node: m.opt.Node,
		Meta: appendMeta(nil, m.core.self.info), Keys: m.keyPrints,
	}
	m.mu.Unlock()
	raw := encode(g)
	return append(binary.AppendUvarint(nil, uint64(len(raw))), raw...), !m.isClosed()
}

func decodeGreeting(raw []byte) (greeting, info, error) {
	var g greeting
	if err := json.Unmarshal(raw, &g); err != nil {
		return g, info{}, fmt.Errorf("a greeting is not understood: %w", err)
	}
	switch {
	case g.Fleet == "" || !validText(g.Fleet, maxLabel):
		return g, info{}, errors.New("a greeting names no fleet")
	case !validName(g.Node):
		return g, info{}, errors.New("a greeting names no node")
	case len(g.Keys) > 16:
		return g, info{}, errors.New("a greeting has too many keys")
	}
	i, err := decodeMeta(g.Meta)
	return g, i, err
}

// turndown is why a peer is not admitted: a short label for the counter, and a sentence for the one who reads the
// other node's log.
type turndown struct {
	reason string
	code   int
	why    string
}

// admit decides whether whoever greets may have a link.
func (m *Mesh) admit(r *http.Request, g greeting, i info) *turndown {
	own := m.opt.Node
	m.mu.Lock()
	keys := m.keyPrints
	m.mu.Unlock()
	switch {
	case g.Speaks < protoOldest || g.Oldest > protoVersion:
		return &turndown{"version", http.StatusUpgradeRequired, fmt.Sprintf(
			"%s speaks versions %d to %d of the mesh's protocol, %s %d to %d: two adjacent releases run together, go through the ones between",
			own, protoOldest, protoVersion, g.Node, g.Oldest, g.Speaks)}
	case g.Fleet != m.opt.Fleet:
		return &turndown{"fleet", http.StatusForbidden, fmt.Sprintf("%s belongs to fleet %q, %s to %q: one of the configs is another fleet's", own, m.opt.Fleet, g.Node, g.Fleet)}
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && r.TLS.PeerCertificates[0].VerifyHostname(g.Node) != nil:
		return &turndown{"identity", http.StatusForbidden, fmt.Sprintf(
			"the certificate does not bear the sender's name: it is for %s, the node says that it is %s; make one with landfall fleet cert",
			strings.Join(r.TLS.PeerCertificates[0].DNSNames, ", "), g.Node)}
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && foreign(r.TLS.PeerCertificates[0], m.opt.Fleet) != "":
		return &turndown{"identity", http.StatusForbidden, fmt.Sprintf("the certificate of %s is for fleet %q, this is fleet %q; make one with landfall fleet cert",
			g.Node, foreign(r.TLS.PeerCertificates[0], m.opt.Fleet), m.opt.Fleet)}
	case len(g.Keys) > 0 && !slices.ContainsFunc(g.Keys, func(k string) bool { return slices.Contains(keys, k) }):
		return &turndown{"key", http.StatusForbidden, fmt.Sprintf("%s and %s share no mesh.key: give them the same, or rotate it step by step", own, g.Node)}
	case g.Node == own && i.Boot != m.core.boot:
		m.step(func(c *core, now instant) *effects { return c.doubled(now, i.Boot) })
		return &turndown{"duplicate", http.StatusConflict, fmt.Sprintf("this node is %s too: give each node a name of its own (--node)", own)}
	case g.Node == own:
		return &turndown{"self", http.StatusConflict, "that is this node itself: mesh.join or an address leads back to its owner"}
	}
	return m.admitName(g.Node, i)
}

// foreign is the fleet that a certificate names, in a URI landfall:/FLEET/NODE, where it is another than this one; empty
// for a certificate that names none.
func foreign(cert *x509.Certificate, fleet string) string {
	other := ""
	for _, u := range cert.URIs {
		if u.Scheme != "landfall" {
			continue
		}
		named, _ := path.Split(strings.TrimPrefix(u.Path, "/"))
		if named = strings.TrimSuffix(named, "/"); named == fleet {
			return ""
		}
		other = named
	}
	return other
}

// admitName refuses a second process of a name while the first one is heard.
func (m *Mesh) admitName(name string, i info) *turndown {
	now := m.instant()
	m.mu.Lock()
	defer m.mu.Unlock()
	mb := m.core.members[name]
	switch {
	case mb == nil && len(m.core.members) >= MaxMembers-1:
		return &turndown{"full", http.StatusInsufficientStorage, errTooMany.Error()}
	case mb == nil || mb.link == nil || mb.info.Boot == i.Boot || mb.link.echoed < 4:
		return nil
	}
	silent := now.at.Sub(mb.link.heardAt)
	if silent >= 3*m.opt.Heartbeat {
		return nil
	}
	return &turndown{"duplicate", http.StatusConflict, fmt.Sprintf(
		"another process of the name %s (boot id %s) was heard %s ago: give each node a name of its own (--node), or wait until it has stopped",
		name, mb.info.Boot, silent.Round(time.Millisecond))}
}

// doubled is the input of another process that says it is this node.
func (c *core) doubled(now instant, boot string) *effects {
	c.begin()
	if c.seldom("duplicate", now.at) {
		c.duplicate(c.node, "boot ids "+c.boot+" and "+boot)
	}
	return &c.out
}

// turnedDown reports what a peer refused this node for, once a minute.
func (m *Mesh) turnedDown(peer string, code int, why string) {
	if code == http.StatusServiceUnavailable {
		return // it starts or stops
	}
	m.step(func(c *core, now instant) *effects {
		c.begin()
		if c.seldom("refused "+peer, now.at) {
			c.event("mesh.refused", peer, "it refuses this node: "+strings.TrimSpace(why))
		}
		return &c.out
	})
}
