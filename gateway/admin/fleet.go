package admin

import "time"

// Status is the fleet at a glance, as one node sees it.
type Status struct {
	Fleet             string              `json:"fleet" doc:"Name of the mesh."`
	Node              string              `json:"node" doc:"The node that answers."`
	Region            string              `json:"region" doc:"Its region."`
	Version           string              `json:"version" doc:"Version of its binary."`
	ConfigHash        string              `json:"config_hash" doc:"Hash of the config that it runs."`
	State             string              `json:"state" doc:"What it says of itself." enum:"joining,serving,draining,leaving"`
	Ready             bool                `json:"ready" doc:"It may take traffic."`
	NotReady          List[string]        `json:"not_ready" doc:"What it still waits for."`
	Uptime            Duration            `json:"uptime" doc:"Since the process started."`
	Regions           List[RegionSummary] `json:"regions" doc:"Every region of the config, sorted by name."`
	SplitConfig       bool                `json:"split_config" doc:"Nodes of the fleet run different configs."`
	Panic             bool                `json:"panic" doc:"For some service more regions look down than the panic threshold allows: all are used."`
	Faults            int                 `json:"faults,omitempty" doc:"Faults that are made on purpose now; see /v1/faults."`
	RequestsPerSecond float64             `json:"requests_per_second" doc:"Requests of clients to this node, lately."`
	DNSPush           List[DNSPush]       `json:"dns_push" doc:"Other DNS providers that are handed the fleet's addresses, sorted by target."`
}

// DNSPush is a zone at another DNS provider that the fleet keeps up to date.
type DNSPush struct {
	Target   string       `json:"target" doc:"Its name in the config."`
	Zone     string       `json:"zone" doc:"The zone."`
	Node     string       `json:"node" doc:"The node that pushes, as the answering node sees it; empty: none may."`
	Self     bool         `json:"self" doc:"It is the answering node, which alone knows the rest."`
	Pending  int          `json:"pending" doc:"Names whose addresses the provider has not been told of."`
	Kept     List[string] `json:"kept" doc:"Names without a usable address: they keep what the provider has."`
	LastPush time.Time    `json:"last_push,omitzero" doc:"When the provider last took an update of this node."`
	Error    string       `json:"error,omitempty" doc:"Why the last update failed; absent: it did not."`
}

// RegionSummary is a region in one line.
type RegionSummary struct {
	Name       string      `json:"name" doc:"Name of the region."`
	State      string      `json:"state" doc:"The worst of its services' states, or draining." enum:"up,unknown,draining,down"`
	NodesLive  int         `json:"nodes_live" doc:"Nodes that take traffic."`
	NodesTotal int         `json:"nodes_total" doc:"Nodes known, dead ones too."`
	Drained    bool        `json:"drained" doc:"An operator drains it."`
	Services   Map[string] `json:"services" doc:"State by service: up, unknown, draining or down."`
	RTT        float64     `json:"rtt_ms,omitzero" doc:"Round trip from the answering node, in milliseconds; absent for its own region and where nothing is known."`
	Estimated  bool        `json:"rtt_estimated,omitzero" doc:"Nobody here measured that round trip: network coordinates let expect it."`
}

// Region is a place with nodes and origins.
type Region struct {
	RegionSummary
	Self     bool         `json:"self" doc:"The answering node is in it."`
	Location *Location    `json:"location,omitempty" doc:"Where it is; absent when the config does not say."`
	Reason   string       `json:"reason,omitempty" doc:"Why it is not up, in words."`
	Nodes    List[string] `json:"nodes" doc:"Names of its nodes, sorted."`
	Drain    *Drain       `json:"drain,omitempty" doc:"The drain in force on it."`
}

// Location is a point on Earth in degrees.
type Location struct {
	Lat float64 `json:"lat" doc:"Latitude in degrees, north positive."`
	Lon float64 `json:"lon" doc:"Longitude in degrees, east positive."`
}

// Node is one gateway process of the fleet.
type Node struct {
	Name       string       `json:"name" doc:"Name of the node."`
	Region     string       `json:"region" doc:"Its region."`
	State      string       `json:"state" doc:"What it says of itself, or dead." enum:"joining,serving,draining,leaving,dead"`
	Reachable  bool         `json:"reachable" doc:"The answering node reaches it."`
	Addresses  List[string] `json:"addresses" doc:"Where clients reach it."`
	Version    string       `json:"version" doc:"Version of its binary."`
	ConfigHash string       `json:"config_hash" doc:"Hash of the config that it runs."`
	RTT        float64      `json:"rtt_ms,omitzero" doc:"Round trip from the answering node, in milliseconds; absent for itself and where nothing was measured."`
	LastSeen   time.Time    `json:"last_seen,omitzero" doc:"When it was last heard."`
	Self       bool         `json:"self" doc:"It is the answering node."`
	Drained    bool         `json:"drained" doc:"An operator drains it."`
}

// Service is a set of hostnames and where it can be served.
type Service struct {
	Name    string              `json:"name" doc:"Name of the service."`
	Hosts   List[string]        `json:"hosts" doc:"Its hostnames: exact, *.suffix, or * for any."`
	Regions List[ServiceRegion] `json:"regions" doc:"The regions that have a pool for it."`
}

// ServiceRegion is a service's state in one region.
type ServiceRegion struct {
	Region string `json:"region" doc:"Name of the region."`
	State  string `json:"state" doc:"Its state for the service." enum:"up,unknown,draining,down"`
}

// Pool is a service's origins in one region.
type Pool struct {
	Region  string       `json:"region" doc:"Name of the region."`
	Panic   bool         `json:"panic" doc:"More origins look down than the panic threshold allows: all are used."`
	State   string       `json:"state" doc:"The verdict of the region's own nodes." enum:"up,unknown,down"`
	Breaker string       `json:"breaker,omitempty" doc:"The circuit breaker of the whole pool on the answering node; absent for another region's." enum:"closed,half-open,open"`
	Forced  bool         `json:"forced,omitempty" doc:"An operator holds that breaker."`
	Balance string       `json:"balance,omitempty" doc:"How an origin is chosen; absent for another region's pool."`
	Origins List[Origin] `json:"origins" doc:"The origins, in the config's order."`
}

// Origin is one address behind the gateway.
type Origin struct {
	URL       string    `json:"url" doc:"Scheme, host and port."`
	State     string    `json:"state" doc:"What its health checks say; unknown without checks or before the first." enum:"up,unknown,down"`
	Detail    string    `json:"detail,omitempty" doc:"Why, in words: the last probe's failure."`
	Breaker   string    `json:"breaker,omitempty" doc:"Its circuit breaker on the answering node; absent for another region's origin." enum:"closed,half-open,open"`
	Forced    bool      `json:"forced,omitempty" doc:"An operator opened or closed the breaker."`
	Ejected   bool      `json:"ejected,omitempty" doc:"Left out for a while because its requests failed or were slow."`
	Drained   bool      `json:"drained,omitempty" doc:"An operator drains it."`
	Limit     int       `json:"limit,omitempty" doc:"Requests in flight that it can work on, given or learned; absent without a limit."`
	Weight    int       `json:"weight,omitempty" doc:"Its share beside the others; absent for another region's origin."`
	Share     float64   `json:"share,omitempty" doc:"The part of its weight that it has, below 1 while it comes back; absent for another region's origin."`
	InFlight  int       `json:"in_flight" doc:"Requests in flight from the node that reports it."`
	LastProbe time.Time `json:"last_probe,omitzero" doc:"When it was last probed."`
}

// CacheStats is the cache of the answering node. Counters start at zero with the process.
type CacheStats struct {
	Node          string  `json:"node" doc:"The node whose cache it is."`
	Enabled       bool    `json:"enabled" doc:"The config gives the cache memory."`
	Objects       int64   `json:"objects" doc:"Objects held, each variant counted."`
	Bytes         int64   `json:"used_bytes" doc:"Memory in use, overhead included."`
	MaxBytes      int64   `json:"max_bytes" doc:"Its bound."`
	Hits          uint64  `json:"hits" doc:"Requests answered from the store."`
	Misses        uint64  `json:"misses" doc:"Requests that went to an origin."`
	HitRatio      float64 `json:"hit_ratio" doc:"Hits as a share of hits and misses, 0 to 1; 0 before the first request."`
	Evictions     uint64  `json:"evictions" doc:"Objects removed to make room."`
	Revalidations uint64  `json:"revalidations" doc:"Stale objects that an origin was asked about."`

	Disk *CacheDisk `json:"disk,omitempty" doc:"The part of the cache that is on disk, if there is one."`

	Sources List[PurgeSource] `json:"sources" doc:"The event streams that invalidate, as this node consumes them."`
}

// PurgeSource is an event stream that invalidates.
type PurgeSource struct {
	Name      string `json:"name" doc:"Its kind, stream or topic, and consumer."`
	Connected bool   `json:"connected" doc:"This node consumes it."`
	Lag       int64  `json:"lag" doc:"Events that are not acknowledged yet: of the whole stream (NATS), or of this node's share (Kafka)."`
	Purged    int64  `json:"purged" doc:"Events that this node purged by, since it started."`
	Ignored   int64  `json:"ignored" doc:"Events that named nothing to purge."`
	Poison    int64  `json:"poison" doc:"Events that could not be understood and were set aside."`
	Error     string `json:"error,omitempty" doc:"Why it can't be consumed now."`
}

// CacheDisk is the part of a node's cache that is on disk.
type CacheDisk struct {
	Objects   int64  `json:"objects" doc:"Objects held, each variant counted."`
	Bytes     int64  `json:"used_bytes" doc:"Bytes of files."`
	MaxBytes  int64  `json:"max_bytes" doc:"Their bound."`
	Evictions uint64 `json:"evictions" doc:"Objects removed to make room."`
	Corrupt   uint64 `json:"corrupt" doc:"Objects that were not what had been written, and so not served."`
	Down      bool   `json:"down" doc:"The disk can't be written now: new objects are in memory alone."`
}

// Cert is a certificate that the answering node serves.
type Cert struct {
	Names     List[string] `json:"names" doc:"Host names that it is for."`
	Issuer    string       `json:"issuer" doc:"Who signed it."`
	Source    string       `json:"source" doc:"Where it comes from." enum:"file,acme"`
	NotBefore time.Time    `json:"not_before" doc:"Start of its validity."`
	NotAfter  time.Time    `json:"not_after" doc:"End of its validity."`
	Error     string       `json:"error,omitempty" doc:"What the last attempt to load or renew it failed with."`
}

// ConfigInfo tells which config the answering node runs, and which the others do. It never holds the config itself, as
// that may hold secrets.
type ConfigInfo struct {
	Hash      string             `json:"hash" doc:"First 12 hex digits of the SHA-256 of the file in force."`
	File      string             `json:"file" doc:"Path that it was read from."`
	Loaded    time.Time          `json:"loaded" doc:"When it came into force."`
	LastError string             `json:"last_error,omitempty" doc:"Why the last reload was refused; the config before it stays in force."`
	Split     bool               `json:"split" doc:"Nodes of the fleet run different configs."`
	Hashes    List[ConfigHolder] `json:"hashes" doc:"Every hash in the fleet and who runs it."`
}

// ConfigHolder is a config hash and the nodes that run it.
type ConfigHolder struct {
	Hash  string       `json:"hash" doc:"Hash of a config."`
	Nodes List[string] `json:"nodes" doc:"Nodes that run it, sorted."`
}
