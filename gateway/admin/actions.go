package admin

import "time"

// The kinds of a DrainTarget.
const (
	DrainRegion = "region"
	DrainNode   = "node"
	// DrainService is a service in one region; the target's name is SERVICE/REGION.
	DrainService = "service"
	DrainOrigin  = "origin"
)

// DrainTarget names what is drained.
type DrainTarget struct {
	Kind string `json:"kind" doc:"What is drained: a service is in one region." enum:"region,node,origin,service"`
	Name string `json:"name" doc:"Its name; of a service SERVICE/REGION."`
}

// DrainSpec is how an operator wants something drained.
type DrainSpec struct {
	Over   Duration `json:"over,omitzero" doc:"Move the clients in a share that grows evenly for this long, each once, from 1s to 24h; absent: at once. Not for nodes."`
	For    Duration `json:"for,omitzero" doc:"Undo the drain by itself after this long, from 1s to 365d; absent: until undrained."`
	Reason string   `json:"reason,omitempty" doc:"Why, for the others: at most 512 bytes without control characters."`
	Force  bool     `json:"force,omitempty" doc:"Drain even if what remains can not carry the load."`
}

// Drain is a drain in force.
type Drain struct {
	DrainTarget
	Reason  string    `json:"reason,omitempty" doc:"Why, as the operator wrote."`
	By      string    `json:"by" doc:"Who set it: the name of a token, or loopback."`
	Since   time.Time `json:"since" doc:"When it was set."`
	Expires time.Time `json:"expires,omitzero" doc:"When it ends by itself; absent: never."`
	Over    Duration  `json:"over,omitzero" doc:"How long the clients take to leave; absent: at once."`
	Moved   float64   `json:"moved" doc:"Share of the clients moved away by now, 0 to 1."`
}

// DrainResult is what a change of a drain came to. It is durable on the answering node in any case; nodes in Missing
// learn of it as soon as they are heard again.
type DrainResult struct {
	DrainTarget
	Drained bool         `json:"drained" doc:"What holds now."`
	Changed bool         `json:"changed" doc:"Something else held before."`
	Drain   *Drain       `json:"drain,omitempty" doc:"The drain now in force; absent after an undrain."`
	Applied List[string] `json:"applied" doc:"Nodes that know of it."`
	Missing List[string] `json:"missing" doc:"Nodes that have not answered yet."`
}

// PurgeRequest asks for invalidation of a service's cached objects.
type PurgeRequest struct {
	Service string       `json:"service" doc:"The service whose objects are purged."`
	URLs    List[string] `json:"urls,omitempty" doc:"Absolute http or https URLs of hosts of the service, at most 1000 of at most 2048 bytes; every variant and both schemes go."`

	Prefixes List[string] `json:"prefixes,omitempty" doc:"URLs without a query: everything of the host whose path begins like this, at most 1000. End one with / to mean a folder."`
	Hosts    List[string] `json:"hosts,omitempty" doc:"Hosts of the service of which everything goes, at most 1000."`
	Keys     List[string] `json:"keys,omitempty" doc:"Surrogate keys: everything goes whose Surrogate-Key or Cache-Tag names one, at most 1000 of at most 1024 bytes."`
	All      bool         `json:"all,omitempty" doc:"Everything of the service; alone."`

	Soft bool `json:"soft,omitempty" doc:"Mark stale instead of removing: a stale copy may still be served while it is refreshed or when the origin fails."`
}

// PurgeResult is what a purge came to so far. Nodes in Missing apply it as soon as they are heard again.
type PurgeResult struct {
	ID      string       `json:"id" doc:"Name of the purge, for GET /v1/purges/{id}."`
	Service string       `json:"service" doc:"The service."`
	URLs    List[string] `json:"urls" doc:"The URLs."`

	Prefixes List[string] `json:"prefixes" doc:"The prefixes."`
	Hosts    List[string] `json:"hosts" doc:"The hosts."`
	Keys     List[string] `json:"keys" doc:"The surrogate keys."`
	All      bool         `json:"all" doc:"Everything of the service."`

	Soft    bool      `json:"soft" doc:"Marked stale instead of removed."`
	By      string    `json:"by" doc:"Who asked: the name of a token, or loopback."`
	Issued  time.Time `json:"issued" doc:"When; objects fetched later survive."`
	Removed int       `json:"removed" doc:"Objects removed (or marked stale) on the nodes in applied, together. 0: none of them held any."`

	Counting bool `json:"counting" doc:"Removed is not final: what a prefix took is counted behind the purge, which is done all the same. Ask for the purge again."`

	Applied List[PurgeApplied] `json:"applied" doc:"Nodes that applied it."`
	Missing List[PurgeMissing] `json:"missing" doc:"Live nodes, of those that were waited for, that have not said so within the timeout."`
}

// Whose word a purge waits for.
const (
	WaitNode   = "node"
	WaitRegion = "region"
	WaitAll    = "all"
)

// PurgeApplied is a node that applied a purge.
type PurgeApplied struct {
	Node    string `json:"node" doc:"Name of the node."`
	Region  string `json:"region" doc:"Its region."`
	Removed int    `json:"removed" doc:"Objects removed (or marked stale) there."`

	Counting bool `json:"counting" doc:"Removed is not final."`
}

// PurgeMissing is a node that has not applied a purge yet.
type PurgeMissing struct {
	Node   string `json:"node" doc:"Name of the node."`
	Region string `json:"region" doc:"Its region."`
	Reason string `json:"reason,omitempty" doc:"What is known of the cause, for instance unreachable."`
}
