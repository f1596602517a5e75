package routing

import "net/netip"

// State is what is known of a region for one service, or of a pool or an origin.
type State uint8

// The states, in the order of preference for routing.
const (
	Up State = iota
	Unknown
	Draining
	Down
)

// String is the state's name as people and metrics see it.
func (s State) String() string { return [...]string{"up", "unknown", "draining", "down"}[s&3] }

// Point is a place on Earth in degrees. Located false means that the place is not known.
type Point struct {
	Lat, Lon float64
	Located  bool
}

// Node is a gateway node that takes traffic: alive, serving and not drained.
type Node struct {
	Name  string
	Addrs []netip.Addr   // where clients reach it, IPv4 and IPv6
	Peer  netip.AddrPort // where other nodes reach it
}

// Region is a place as the snapshot knows it.
type Region struct {
	Name     string
	Location Point
	Nodes    []Node // sorted by name: those that take traffic; when there are none, the last that were known
	Drained  bool   // an operator has moved traffic away
	// Draining is the share of the clients that a gradual drain has moved away so far, 0 to 1.
	Draining float64
	Load     float64 // requests a second that its nodes take, of clients
	Capacity float64 // requests a second that it can take; 0: not known
	Dead     bool    // no node of it is alive and reachable
}

// Policy chooses how a service orders its candidates.
type Policy uint8

// The policies.
const (
	Nearest  Policy = iota
	Weighted        // by weight alone
	Priority        // by a fixed order of regions, then by distance
)

// Service is what the decision needs of a service. Places has one entry for each of Snapshot.Regions.
type Service struct {
	Name   string
	Policy Policy
	Places []Place
	Rules  []Rule // where clients' data may go; the first that names a client's country holds
}

// Place is a service in one region.
type Place struct {
	HasPool bool  // the region may serve it: it has a pool of its own or the service has one for any region
	Pool    State // Up, Unknown or Down, as the region's own nodes see their origins
	Weight  uint16
	Order   uint8   // under policy Priority: the lowest first; regions that are not listed share the highest
	Drained float64 // share of the clients that a drain of the service in this region has moved away so far
	Spill   float64 // share of the clients that would come here and are sent on, since the region is full; below 1
	// SpillBeyond is the distance of the nearest of those clients, in microseconds of round trip: the farthest are sent on
	// first. 0: distances are not known, and the share is drawn by a hash.
	SpillBeyond uint32
	Strain      Strain
	// Shut tells that Pool is Down because the region's front door does not answer for the service, as a quorum of other
	// regions finds.
	Shut bool
	// Return is the share of the clients that are not let in yet, since the service is coming back here; below 1.
	Return float64
}

// Strain is how a service's origins in a region bear their load, for people; the decision goes by Spill.
type Strain struct {
	Waiting float64 // requests that wait for an origin's answer now
	Stretch float64 // the latency of the origins, as a multiple of its baseline; 0: not known
	Fit     float64 // the share of the capacity that the region was found to be able to take; 0: all of it
}

// Snapshot is the fleet at one moment, made by NewSnapshot. It is immutable once published; publishing swaps a pointer.
type Snapshot struct {
	Regions  []Region  // sorted by name
	Services []Service // sorted by name
	Panic    float64   // share of a service's regions, 0 to 1
	AllDown  int       // index of the region that gets everybody when all are down, or -1: fail open
	Version  uint64    // grows by one with each snapshot of a node

	// PeerRTT is the round trip between regions in microseconds, by two indices; 0 where it was not measured. Nil: nothing
	// was measured.
	PeerRTT [][]uint32
	// Estimated tells which of PeerRTT are estimates, by the same indices; nil: none.
	Estimated [][]bool

	vectors []vector // of each region's location
	around  *around  // the regions by distance from about everywhere
	hashes  []uint64 // of each region's name
	ready   []ready  // by service
}

// Client is whom a decision is for.
type Client struct {
	Point   Point
	Key     uint64  // stable hash of the client's prefix; see ClientKey
	Country Country // 0: not known
	// RTT is what was measured of the client, an entry for each region; nil: nothing was measured.
	RTT []RTT
	// Via is the region where the question arrived plus one, for clients of whom nothing better is known; 0: not known.
	Via int
	// Named is the region that the client asks for by a name of its own, plus one: it comes first while it is as usable as
	// the best; 0: none.
	Named int
	// Explore asks for the runner-up, so that its distance becomes known too. It is granted only where the detour is
	// bounded and no residency binds the client.
	Explore bool
}

// RTT is a measured round trip between a client and a region.
type RTT struct {
	Micros uint32 // 0: not measured
	Source Source // Measured or MeasuredWide
}

// Source is where a distance comes from.
type Source uint8

// The sources of a distance, the better ones last.
const (
	NoDistance   Source = iota // the client's or the region's place is not known
	Coordinates                // what network coordinates let expect from the region where the question arrived
	PeerRTT                    // the round trip from the region where the question arrived
	Geography                  // from the places of both
	MeasuredAS                 // handshakes of the client's autonomous system in its country
	MeasuredWide               // handshakes of a wider network around the client
	Measured                   // handshakes of the client's own prefix
)

// String is the source's name.
func (s Source) String() string {
	return [...]string{"none", "coordinates", "peer_rtt", "geography", "measured_as", "measured_wide", "measured", "none"}[s&7]
}

// Reason is why a region stands where it stands: a closed list.
type Reason uint8

// The reasons.
const (
	Chosen           Reason = iota // the best candidate
	Farther                        // a candidate, but another is nearer
	ByWeight                       // a candidate as near as the best: weight and a hash of the client preferred another
	WeightZero                     // weight 0: only when no other region is left
	Unmeasured                     // its state is unknown and another region is up
	DrainedRegion                  // an operator drains it
	NoPool                         // it has no origins for the service
	NoNode                         // none of its nodes is alive and reachable
	PoolDown                       // its nodes find all of the service's origins there down
	AllDownFallback                // the all-down policy names another region
	Full                           // it has more load than it should take, and this client is in the share that goes on
	FullToo                        // every region is full: nobody is refused, the nearest takes them
	ResidencyPrefers               // residency prefers other regions for this client
	ResidencyForbids               // residency keeps this client's data out of it
	LaterInOrder                   // a candidate, but the configured order has another first
	Explored                       // a client in the share that is sent to the runner-up to learn its distance
	ByName                         // the client asked by the name of a region, which comes first
	DoorDown                       // other regions find that its front door does not answer for the service
	Returning                      // it is coming back, and this client is in the share that is not let in yet
)

// Mode tells whether the decision was an ordinary one.
type Mode uint8

// The modes.
const (
	Normal      Mode = iota
	PanicMode        // more regions than the threshold look down: the observer is suspected, down regions are candidates
	LastResort       // nothing is up or unknown: drained regions are used
	AllDownMode      // every region is down: the all-down policy holds
	Unservable       // no region has a pool for the service
)

// Choice is one region's place in a decision. It is small, since each decision writes one for every region.
type Choice struct {
	Region int // index into Snapshot.Regions
	State  State
	Reason Reason
	Source Source
	Weight uint16

	tier  tier
	order uint8  // under policy Priority
	angle bool   // the cost is an angle, see angleCost
	cost  uint32 // the distance in microseconds of round trip, measured or estimated; unknownCost without one
}

// Decision is the answer for one client and service. Choices[:Usable] are the candidates, best first; the rest were
// passed over, each with its reason.
type Decision struct {
	Choices []Choice
	Usable  int
	Mode    Mode
}
