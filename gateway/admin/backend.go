package admin

import (
	"context"
	"net/netip"
)

// Backend is what the API reads and changes; package gateway implements it. Every method may be called by many
// goroutines at once. The reading ones answer from memory, at once, and must not take a lock that the data path waits
// for. What they return belongs to the caller, but its slices and maps are only read.
//
// An error that is a *Problem (see NotFound, Refused, Invalid and Unavailable) is answered as it is; any other error is
// answered as a 500 with its text, so it should read as a sentence for the operator.
type Backend interface {
	Fleet
	Services
	Local
	Drains
	Verdicts
	Weights
	Purges
	Breakers
	Homes
	Flags
	Canaries
	Keys
	Faults
}

// Fleet is the fleet as this node sees it.
type Fleet interface {
	Status() Status
	// Regions are all regions of the config, sorted by name.
	Regions() []Region
	// Nodes are all nodes known, dead ones too, sorted by name.
	Nodes() []Node
	Config() ConfigInfo
}

// Services is what the fleet serves and how it decides.
type Services interface {
	// Services are sorted by name.
	Services() []Service
	// Pools are a known service's pools, sorted by region. The API has checked that the service exists.
	Pools(service string) ([]Pool, error)
	// Explain decides for a client, as DNS and the proxy would. The URL is absolute, http or https, with a host. The
	// zero client is one of whom nothing is known. An unknown host is a NotFound.
	Explain(url string, client netip.Addr) (Explanation, error)
}

// Local is the state of this node alone.
type Local interface {
	Cache() CacheStats
	Certs() []Cert
	// Ready tells whether the node may take traffic and, when it may not, what it waits for.
	Ready() (bool, []string)
}

// Weights are set and reset by operators at run time.
type Weights interface {
	// Weights are those in force, sorted by service and region.
	Weights() []Weight
	// SetWeight sets a service's weight in a region, or lets the config's hold again when spec is nil. It is refused when
	// it would leave too little, unless spec forces it.
	SetWeight(ctx context.Context, service, region string, spec *WeightSpec, by string) (WeightResult, error)
}

// Drains are set and ended by operators.
type Drains interface {
	// Drains are those in force, sorted by kind and name.
	Drains() []Drain
	// SetDrain drains the target, or ends its drain when spec is nil; ending one that does not exist is no error. The
	// target is a known region or node, or has a drain. The context's end bounds the wait for other nodes, not the
	// change itself. A drain that would leave too little and is not forced is a Refused.
	SetDrain(ctx context.Context, target DrainTarget, spec *DrainSpec, by string) (DrainResult, error)
}

// Purges invalidate cached objects on every node.
type Purges interface {
	// Purge applies the purge here, makes it durable and waits for the other nodes until the context ends; the nodes
	// that have not answered by then are in Missing, which is no error. The request is valid and its service known.
	// whose word it waits for are those of wait: WaitNode (this one), WaitRegion or WaitAll.
	Purge(ctx context.Context, p PurgeRequest, wait, by string) (PurgeResult, error)
	// PurgeByID is how a purge stands now; false when it is not known, or no longer.
	PurgeByID(id string) (PurgeResult, bool)
}
