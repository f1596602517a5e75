package mesh

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxLabel bounds the fleet's name, which memberlist puts before each packet.
const maxLabel = memberlist.LabelMaxSize

// Defaults and bounds of the options.
const (
	defaultHeartbeat = 250 * time.Millisecond
	minHeartbeat     = 10 * time.Millisecond
	maxHeartbeat     = 10 * time.Second
	defaultReadyWait = 10 * time.Second
)

// Options says who this node is and how it talks. The functions are called from goroutines of the mesh.
type Options struct {
	Node, Region, Fleet, Version, ConfigHash string
	Boot                                     string // identifies this run of the process; never used again

	Addrs           []netip.Addr   // client-facing, at most MaxAddrs
	Bind, Advertise netip.AddrPort // gossip, UDP and TCP. Port 0: any free one. Advertise absent: derived from Bind
	Peer, Admin     netip.AddrPort // told to the others; an unspecified address is replaced by the advertised one

	Keys    [][]byte // gossip keys of 16, 24 or 32 bytes: the first encrypts, all decrypt
	Join    []string // host or host:port; without a port, this node's own gossip port
	DataDir string   // holds registers.db; empty: nothing is persisted

	// Client reaches the peers: mutual TLS, HTTP/2. Its transport dials Mesh.PeerAddr(name) for the host name+PeerSuffix
	// and verifies the node's name, which PeerName finds in the request's context. It should ping idle connections
	// (http.HTTP2Config's SendPingTimeout and PingTimeout of a second or two): a connection that a partition left
	// half-open otherwise delays the way back.
	Client *http.Client

	Heartbeat time.Duration // 10ms to 10s; default 250ms
	ReadyWait time.Duration // how long Ready waits for a peer's registers when nobody answers; default 10s
	Logger    *slog.Logger
	Metrics   *Metrics
	Now       func() time.Time // default time.Now
	Rand      func() float64   // in [0,1), for jitter; safe for concurrent use; default math/rand/v2

	// Delay is the simulated one-way delay of gossip packets to nodes of a region (labs and drills); negative: cut off,
	// packets are lost and streams refused, in this direction only. It must not block. nil: none.
	Delay func(region string) time.Duration

	// OnRegister is called for each register newly learnt or changed, this node's own and (when Run begins) those read
	// from disk included; in order for each key, never concurrently. A peer's push and this node's Set are acknowledged
	// after it returns. It may call anything of Mesh but Set. It is not called when a register expires; OnChange is.
	OnRegister func(Register)
	// OnChange is called after members, their states, reports or reachability changed, or registers expired; many
	// changes may come as one call. Never concurrently with itself or OnEvent.
	OnChange func()
	// OnEvent is called for what an operator wants to know: node.joined node.restarted node.state node.left node.dead
	// node.unreachable node.back node.duplicate node.conflict config.split config.whole registers.corrupt
	// registers.disk registers.future registers.full mesh.alone mesh.refused. nil: events are logged.
	OnEvent func(kind, subject, detail string)

	tune     func(*memberlist.Config)                            // tests: faster gossip
	underlay func(netip.AddrPort, *log.Logger) (underlay, error) // tests: a network in memory
}

// withDefaults is the options with what is absent filled in, or what is wrong with them.
func (o Options) withDefaults() (Options, error) {
	if o.Heartbeat == 0 {
		o.Heartbeat = defaultHeartbeat
	}
	if o.ReadyWait == 0 {
		o.ReadyWait = defaultReadyWait
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.underlay == nil {
		o.underlay = listen
	}
	if o.OnRegister == nil {
		o.OnRegister = func(Register) {}
	}
	return o, o.check()
}

func (o Options) check() error {
	switch {
	case !validName(o.Node):
		return fmt.Errorf("mesh: node name %.70q must be 1 to %d letters, digits or . _ -", o.Node, maxText)
	case o.Fleet == "" || !validText(o.Fleet, maxLabel):
		return fmt.Errorf("mesh: the fleet's name must be 1 to %d printable bytes", maxLabel)
	case len(o.Keys) == 0:
		return errors.New("mesh: no gossip key; set mesh.key to 32 bytes in base64 (landfall fleet init makes one)")
	case o.Client == nil || o.Metrics == nil:
		return errors.New("mesh: Options.Client and Options.Metrics are required")
	case !o.Bind.IsValid():
		return errors.New("mesh: no address to listen on for gossip; set listen.mesh")
	case !o.Peer.IsValid() || o.Peer.Port() == 0:
		return errors.New("mesh: no peer address; set listen.peer, the nodes reach each other there")
	case o.Heartbeat < minHeartbeat || o.Heartbeat > maxHeartbeat:
		return fmt.Errorf("mesh: a heartbeat of %s is not within %s to %s", o.Heartbeat, minHeartbeat, maxHeartbeat)
	}
	for i, k := range o.Keys {
		if err := memberlist.ValidateKey(k); err != nil {
			return fmt.Errorf("mesh: gossip key %d must have 16, 24 or 32 bytes, not %d", i+1, len(k))
		}
	}
	return nil
}

// info is what the options say of this node, once its gossip address is known.
func (o Options) info(gossip netip.AddrPort) (info, error) {
	i := info{
		Started: o.Now().UnixMilli(), Seq: 1, State: Joining,
		Region: o.Region, Boot: o.Boot, Version: o.Version, Hash: o.ConfigHash,
		Peer: reachableAt(o.Peer, gossip), Admin: reachableAt(o.Admin, gossip),
	}
	for _, a := range o.Addrs {
		i.Addrs = append(i.Addrs, plain(a))
	}
	if err := i.check(); err != nil {
		return i, fmt.Errorf("mesh: %w", err)
	}
	return i, nil
}

// reachableAt replaces an unspecified address, which means every interface, by the one that others know.
func reachableAt(a, advertised netip.AddrPort) netip.AddrPort {
	addr := plain(a.Addr())
	if addr.IsUnspecified() {
		addr = advertised.Addr()
	}
	return netip.AddrPortFrom(addr, a.Port())
}

// advertised is the address that others are told for gossip: the one given, else the one listened on, else the first
// usable one of the machine, IPv4 first. The port is 0 where it is to be the one listened on.
func advertised(bind, advertise netip.AddrPort, interfaces []netip.Addr) (netip.AddrPort, error) {
	addr, port := plain(advertise.Addr()), advertise.Port()
	if addr.IsValid() && !addr.IsUnspecified() {
		return netip.AddrPortFrom(addr, port), nil
	}
	if addr = plain(bind.Addr()); !addr.IsUnspecified() {
		return netip.AddrPortFrom(addr, port), nil
	}
	usable := slices.DeleteFunc(slices.Clone(interfaces), func(a netip.Addr) bool {
		return !a.IsGlobalUnicast() || addr.Is4() && !a.Is4()
	})
	slices.SortStableFunc(usable, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	if len(usable) == 0 {
		return netip.AddrPort{}, errors.New("mesh: no address of this machine can be told to the other nodes; set --advertise")
	}
	return netip.AddrPortFrom(usable[0], port), nil
}

func interfaceAddrs() []netip.Addr {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil // advertised then says what to set
	}
	var out []netip.Addr
	for _, n := range nets {
		if p, perr := netip.ParsePrefix(n.String()); perr == nil {
			out = append(out, plain(p.Addr()))
		}
	}
	return out
}
