package configs

import "strconv"

// Config is a whole fleet. Every node of the fleet gets the same bytes; what differs between nodes (name, region,
// addresses, data folder) comes from the flags of `landfall run`. A Config is immutable once loaded.
type Config struct {
	Fleet       string              `yaml:"fleet" doc:"Name of the mesh. Two fleets of different names never merge by accident." default:"landfall"`
	Regions     map[string]Region   `yaml:"regions" doc:"The places that have nodes. Absent: one region, \"local\"."`
	Listen      Listen              `yaml:"listen" doc:"Addresses to listen on. Only those named are opened; the admin API always is."`
	Mesh        Mesh                `yaml:"mesh" doc:"How the nodes find and trust each other."`
	DNS         DNS                 `yaml:"dns" doc:"Authoritative DNS: the zones that steer clients to regions."`
	Health      Health              `yaml:"health" doc:"When a region counts as down, and what happens when all of them do."`
	Cache       Cache               `yaml:"cache" doc:"The node's cache."`
	Compression Compression         `yaml:"compression" doc:"Compression of responses towards clients."`
	TLS         TLS                 `yaml:"tls" doc:"Certificates of the HTTPS listeners."`
	Limits      Limits              `yaml:"limits" doc:"Bounds on what a client may send."`
	Shutdown    Shutdown            `yaml:"shutdown" doc:"The stages of a stop."`
	Services    map[string]*Service `yaml:"services" doc:"What the fleet serves: hosts, their routes and their origins." required:"true"`
	Flags       map[string]Flag     `yaml:"flags" doc:"Switches that routes depend on, turned at run time; by name."`
	Purge       Purge               `yaml:"purge" doc:"What invalidates beside people: event streams and webhooks."`
	Chaos       Chaos               `yaml:"chaos" doc:"Faults made on purpose, for drills."`
	Admin       Admin               `yaml:"admin" doc:"Who may use the admin API."`
	Observe     Observe             `yaml:"observe" doc:"Logs."`

	// Hash identifies the bytes of the file (first 12 hex digits of their SHA-256, before ${ENV} is filled in). Nodes
	// gossip it, so that a fleet running two configs is seen. Set by Parse.
	Hash string `yaml:"-"`
	// Dir is the folder that relative paths in the file are resolved against. Parse leaves paths already resolved.
	Dir string `yaml:"-"`
}

// Region is a place with nodes and origins.
type Region struct {
	Location      *Location `yaml:"location" doc:"[latitude, longitude] in degrees; distance to clients where nothing better was measured."`
	Jurisdictions []string  `yaml:"jurisdictions" doc:"Names of the jurisdictions that data in the region is under, for services' residency."`
	Capacity      int       `yaml:"capacity" doc:"Requests a second that the region's nodes and origins can take. 0: not known, so that nothing spills from it." default:"0" min:"0" max:"1000000000"`
}

// Location is a point on Earth in degrees. In YAML: [latitude, longitude].
type Location struct{ Lat, Lon float64 }

// Listen holds the addresses to listen on. An address without a host listens on --bind.
type Listen struct {
	HTTP           []string `yaml:"http" doc:"Plain HTTP/1.1 listeners. A request for a host with a certificate is redirected to HTTPS unless http_redirect is false."`
	HTTPS          []string `yaml:"https" doc:"HTTPS listeners: HTTP/1.1 and HTTP/2."`
	HTTP3          bool     `yaml:"http3" doc:"Serve HTTP/3 too, on the UDP port of each https listener. Responses by HTTP/1.1 and HTTP/2 tell clients of it (Alt-Svc), HTTPS records too. Let UDP through to the port." default:"false"`
	HTTPRedirect   *bool    `yaml:"http_redirect" doc:"Redirect HTTP to HTTPS where a certificate is held and an HTTPS listener exists." default:"true"`
	DNS            []string `yaml:"dns" doc:"DNS listeners, UDP and TCP."`
	Mesh           string   `yaml:"mesh" doc:"Gossip, UDP and TCP."`
	Peer           string   `yaml:"peer" doc:"Node to node: HTTP/2 with mutual TLS. Needed with more than one node."`
	Admin          string   `yaml:"admin" doc:"Admin API and metrics." default:"127.0.0.1:9901"`
	TrustedProxies []Prefix `yaml:"trusted_proxies" doc:"Addresses whose X-Forwarded-For is believed (CIDR or single address)."`
}

// Mesh is how nodes find and trust each other.
type Mesh struct {
	Join StringList `yaml:"join" doc:"Addresses (host or host:port) of nodes to find the fleet by; any one that answers is enough. They are tried for ever."`
	Key  StringList `yaml:"key" doc:"Gossip keys, each 32 bytes in base64: the first encrypts, all decrypt. Rotate them by landfall fleet rotate-key; from then on the nodes keep the keys themselves, and this one serves nodes that start with an empty data folder. Or by hand, with reloads: add the new one behind the old on every node, then move it to the front, then remove the old. Use ${ENV}." secret:"true"`
	TLS  MeshTLS    `yaml:"tls" doc:"The fleet's CA and this node's certificate, for the peer channel."`
}

// MeshTLS names PEM files.
type MeshTLS struct {
	CA   string `yaml:"ca" doc:"PEM file with the fleet's CA certificate." path:"true"`
	Cert string `yaml:"cert" doc:"PEM file with this node's certificate; ${NODE} in it is replaced by the node's name." path:"true"`
	Key  string `yaml:"key" doc:"PEM file with this node's private key; ${NODE} in it is replaced by the node's name." path:"true"`
}

// DNS configures the authoritative DNS server.
type DNS struct {
	Zones   map[string]Zone     `yaml:"zones" doc:"The zones this fleet is authoritative for, by name."`
	Answers int                 `yaml:"answers" doc:"Addresses in an answer: the best region's, then the next region's as the client's own fallback." default:"2" min:"1" max:"8"`
	Rate    DNSRate             `yaml:"rate" doc:"Bounds answers over UDP, so that nobody can be flooded with ours."`
	RTT     DNSRTT              `yaml:"rtt" doc:"Steering by the round trips of clients' own connections."`
	Push    map[string]*DNSPush `yaml:"push" doc:"Other DNS providers that are handed the addresses of service hosts, by a name of your own. One elected node pushes; a name is never emptied. Records of these providers can't tell clients apart: every client is given the addresses of all regions that are usable."`
	GeoIP   string              `yaml:"geoip" doc:"MaxMind database (.mmdb) with city or country records; optional." path:"true"`
	ASN     string              `yaml:"asn" doc:"MaxMind database (.mmdb) of autonomous systems; optional. With it a client of whom nothing was measured is taken to be as far as others of its system in its country." path:"true"`
}

// DNSRate is response rate limiting.
type DNSRate struct {
	Responses int `yaml:"responses" doc:"Answers a second towards one network (IPv4 /24, IPv6 /56) over UDP; 0: no bound. Clients that show a valid cookie (RFC 7873) are not bounded." default:"2000" min:"0" max:"1000000"`
	Slip      int `yaml:"slip" doc:"Past the bound every n-th answer is sent truncated, which brings real clients by TCP, and the rest are dropped; 0: all are dropped." default:"2" min:"0" max:"100"`
}

// DNSRTT is steering by measured round trips.
type DNSRTT struct {
	Measure  bool    `yaml:"measure" doc:"Measure clients' round trips (by QUIC, and on Linux by TCP), remember them by prefix (/24, /48), share them over the mesh, and prefer them to geography." default:"true"`
	Header   string  `yaml:"header" doc:"Request header in which trusted_proxies tell the round trip to their client, in milliseconds, as load balancers can: then it is known through them too. Absent: none."`
	Explore  Percent `yaml:"explore" doc:"Share of the clients that go to the runner-up for ten minutes, so that its round trip becomes known too; never those that residency binds, and never far." default:"0%"`
	Prefixes int     `yaml:"prefixes" doc:"Prefixes that are remembered, wider networks included; 100 bytes each in a fleet of 12 regions." default:"262144" min:"1024" max:"4194304"`
}

// Zone is one zone. Names in it are answered for every service host that lies in it, and for its nameservers.
type Zone struct {
	TTL         Duration `yaml:"ttl" doc:"TTL of address answers, at most: what they have while the fleet is calm." default:"20s" min:"1s" max:"24h"`
	MinTTL      Duration `yaml:"min_ttl" doc:"TTL of a service's addresses while something is changing for it: a region down or back, a drain under way, load that spills. It doubles up to ttl as things stay calm. Absent: a quarter of ttl, at least 1s." min:"1s" max:"24h"`
	NegativeTTL Duration `yaml:"negative_ttl" doc:"How long resolvers may keep a negative answer (SOA minimum, RFC 2308)." default:"20s" min:"1s" max:"24h"`
	Nameservers []string `yaml:"nameservers" doc:"Names of the zone's name servers, relative to the zone or absolute with a final dot. Those in the zone get glue, spread over the regions." default:"[ns1, ns2]"`
	Contact     string   `yaml:"contact" doc:"Mail address for the SOA record." default:"hostmaster"`
	Records     []string `yaml:"records" doc:"What else the zone holds, in master-file form, as in \"@ MX 10 mail.example.net.\": any type of data, CNAME off the apex, wildcards, delegations (NS, DS and glue). A record without a TTL has 1h."`
	HTTPS       bool     `yaml:"https" doc:"Answer HTTPS records (RFC 9460) for service hosts: the protocols of the https listeners and the region's addresses, so that browsers come by HTTPS at once." default:"false"`
	Secondaries []Prefix `yaml:"secondaries" doc:"Addresses that may copy the zone's static part by AXFR over TCP (CIDR or single address)."`
	DNSSEC      *DNSSEC  `yaml:"dnssec" doc:"Sign the zone's answers. Absent: unsigned."`
}

// DNSSEC configures online signing of a zone.
type DNSSEC struct {
	Keys string `yaml:"keys" doc:"Folder with the zone's ECDSA P-256 keys as dnssec-keygen writes them (K<zone>.+013+<tag>.key and .private); the times in .private files (Publish, Activate, SyncPublish, SyncDelete, Inactive, Delete) lead a rollover." path:"true" required:"true"`
}

// Health tells when a region counts as down.
type Health struct {
	Quorum     string     `yaml:"quorum" doc:"Observers in distinct regions that must agree before a node is called unreachable." default:"majority" enum:"majority,any,all"`
	Panic      Percent    `yaml:"panic" doc:"When more than this share of the regions (or of a pool's origins) looks down, the observer is suspected and all are used." default:"50%"`
	Hold       Duration   `yaml:"hold" doc:"How long a region, or a service's pool there, must look well before it counts as up again. Doubles with each fall of the last ten minutes, up to 5m." default:"2s" min:"0s" max:"5m"`
	SlowStart  Duration   `yaml:"slow_start" doc:"How long a service that was down in a region takes to get all of its clients there back: the share grows evenly. 0s: at once." default:"10s" min:"0s" max:"10m"`
	FrontDoors FrontDoors `yaml:"front_doors" doc:"How each region looks at the others as a client does."`
	AllDown    string     `yaml:"all_down" doc:"When every region looks down: fail_open (use all of them, nearest first) or the name of one region that gets everybody." default:"fail_open"`
}

// FrontDoors is how each region observes the others end to end.
type FrontDoors struct {
	Interval  Duration `yaml:"interval" doc:"Time between two looks at a region's front door for a service, jittered by 10%: a connection to the public address of one of its nodes, TLS, and a request that goes through the service's pool. Longer where there are more than 64 a second to make. 0s: nobody looks." default:"2s" min:"0s" max:"10m"`
	Timeout   Duration `yaml:"timeout" doc:"Time that a look may take." default:"3s" min:"100ms" max:"1m"`
	Rise      int      `yaml:"rise" doc:"Good looks in a row that bring a front door up for this observer." default:"2" min:"1" max:"100"`
	Fall      int      `yaml:"fall" doc:"Failed looks in a row that take it down for this observer." default:"3" min:"1" max:"100"`
	Observers int      `yaml:"observers" doc:"Nodes of each region that look at a front door; the others hear of it." default:"2" min:"1" max:"16"`
}

// Cache configures the node's cache.
type Cache struct {
	Memory    Size `yaml:"memory" doc:"Bytes of memory for cached objects, overhead included; 0 switches the cache off." default:"256MiB" min:"0"`
	MaxObject Size `yaml:"max_object" doc:"Largest body that is stored; a larger one passes through." default:"32MiB" min:"1KiB"`

	RegionPeers *bool  `yaml:"region_peers" doc:"The nodes of a region share one cache: each URL has a holder among them, which the others ask on a miss; what is hot is copied." default:"true"`
	Shield      string `yaml:"shield" doc:"Which region alone asks the origins on a miss, of all regions: a region, or nearest: for a region without a pool of its own, the nearest that has one. off: each region asks for itself." default:"off"`

	Disk *CacheDisk `yaml:"disk" doc:"Keep what is stored on disk too, where there is more room, and over restarts. Absent: in memory alone."`

	Isolation Duration `yaml:"isolation" doc:"A node that is cut off from the mesh for longer confirms each cached object with its origin before it serves it, since it can't hear of purges. 0s: never." default:"30s" min:"0s" max:"24h"`
}

// CacheDisk configures the part of a node's cache that is on disk.
type CacheDisk struct {
	Path string `yaml:"path" doc:"Folder. Each node makes one of its own name in it." required:"true"`
	Size Size   `yaml:"size" doc:"Bytes of the files in it. Each object there takes 68 bytes of memory, of which at most an eighth is used so." default:"10GiB" min:"1MiB"`
}

// Compression configures compression towards clients.
type Compression struct {
	Algorithms []string `yaml:"algorithms" doc:"Codings offered, in order of preference; [] switches compression off." default:"[zstd, br, gzip]" enum:"zstd,br,gzip"`
	MinSize    Size     `yaml:"min_size" doc:"Bodies known to be smaller are not compressed." default:"512"`
	Types      []string `yaml:"types" doc:"Media types that are compressed; type/* matches a whole type." default:"[text/*, application/json, application/javascript, application/xml, application/manifest+json, image/svg+xml, application/wasm, font/ttf]"`
}

// TLS configures the certificates of the HTTPS listeners.
type TLS struct {
	MinVersion   string        `yaml:"min_version" doc:"Oldest TLS version accepted." default:"1.2" enum:"1.2,1.3"`
	Certificates []Certificate `yaml:"certificates" doc:"Certificates from files, chosen by SNI."`
	ACME         *ACME         `yaml:"acme" doc:"Obtain certificates for the services' hosts by ACME (RFC 8555)."`
}

// Certificate names a certificate chain and its key, PEM.
type Certificate struct {
	Cert string `yaml:"cert" doc:"PEM file with the certificate chain." path:"true" required:"true"`
	Key  string `yaml:"key" doc:"PEM file with the private key." path:"true" required:"true"`
}

// ACME configures automatic certificates.
type ACME struct {
	Email     string `yaml:"email" doc:"Contact address of the ACME account."`
	Directory string `yaml:"directory" doc:"URL of the ACME directory." required:"true"`
	Challenge string `yaml:"challenge" doc:"How ownership is proven: http (port 80) or tls-alpn (port 443)." default:"tls-alpn" enum:"http,tls-alpn"`
	CA        string `yaml:"ca" doc:"PEM file with the CA that the directory's own certificate is checked against; absent: the system's." path:"true"`
}

// Limits bounds what a client may send.
type Limits struct {
	HeaderBytes          Size     `yaml:"header_bytes" doc:"Request line and headers together; more is 431." default:"32KiB" min:"1KiB" max:"1MiB"`
	Headers              int      `yaml:"headers" doc:"Header fields of a request; more is 431." default:"128" min:"8" max:"10000"`
	Streams              int      `yaml:"streams" doc:"Concurrent HTTP/2 streams of a connection." default:"128" min:"1" max:"10000"`
	Connections          int      `yaml:"connections" doc:"Open client connections of the node; more are closed at once." default:"100000" min:"1"`
	ConnectionsPerClient int      `yaml:"connections_per_client" doc:"Open connections of one client address; more are closed at once." default:"512" min:"1"`
	ConnectionRate       Rate     `yaml:"connection_rate" doc:"New connections of one client address; more are closed at once. Absent: unlimited."`
	Body                 Size     `yaml:"body" doc:"Request body; more is 413." default:"64MiB" min:"0"`
	HeaderTimeout        Duration `yaml:"header_timeout" doc:"Time for a client to send a request's headers." default:"10s" min:"100ms" max:"10m"`
	IdleTimeout          Duration `yaml:"idle_timeout" doc:"How long an idle connection is kept." default:"75s" min:"1s" max:"1h"`
}

// Shutdown configures the stages of a stop (SIGTERM): leave DNS and mesh, wait, tell the connections, finish.
type Shutdown struct {
	DNSWait Duration `yaml:"dns_wait" doc:"How long a leaving node goes on serving after DNS stopped naming it. Absent: the longest TTL of the zones, 0 without zones." max:"1h"`
	Grace   Duration `yaml:"grace" doc:"How long in-flight requests may then take to finish before they are cut; WebSockets that are left then are told to go by a Close frame (1001), and have a second." default:"30s" min:"0s" max:"1h"`

	// DNSWaitSet tells an explicit dns_wait (0s too) from an absent one.
	DNSWaitSet bool `yaml:"-"`
}

// Service is a set of hostnames with its routes and origins.
type Service struct {
	Hosts          []string        `yaml:"hosts" doc:"Hostnames: exact, *.suffix for any name below, or * for whatever no other service claims." required:"true"`
	Steering       Steering        `yaml:"steering" doc:"How a region is chosen for a client."`
	Residency      []Residency     `yaml:"residency" doc:"Where clients' data may go. The first rule that names a client's country holds."`
	Primary        string          `yaml:"primary" doc:"Region that takes this service's writes: requests with an unsafe method (RFC 9110 section 9.2.1) are served there, or refused with a 503 while it can't be reached. Absent: every region takes writes."`
	ReadYourWrites Duration        `yaml:"read_your_writes" doc:"For so long after a write, a client's reads go to the primary too and past the cache: as long as the other regions' replicas lag. The client is known by a cookie (landfall-wrote), and by affinity.by where there is one. 0s: reads are never sent there." default:"0s" min:"0s" max:"1h"`
	Affinity       *Affinity       `yaml:"affinity" doc:"Home regions of users: requests with a user's key are served in the region where its data lives. Absent: by steering alone."`
	Pools          map[string]Pool `yaml:"pools" doc:"Origins by region; \"any\" serves regions that have none of their own." required:"true"`
	Pool           PoolPolicy      `yaml:"pool" doc:"Policy of each of the service's pools."`
	Paths          Paths           `yaml:"paths" doc:"How paths are read before a route is chosen; what was matched is what origins get and the cache goes by. Dot segments (/./, /%2e%2e/) and needless escapes (/%61dmin) are always resolved."`
	Routes         []Route         `yaml:"routes" doc:"First match wins, in file order; none matching is a 404. Absent: one route for /*."`
	Debug          bool            `yaml:"debug" doc:"Add Server-Timing, X-Landfall-Region, X-Landfall-Node and X-Request-Id to responses."`
	Purgers        []Prefix        `yaml:"purgers" doc:"Client addresses that may send PURGE requests to this service (CIDR or single address)."`
}

// Steering configures the choice of a region.
type Steering struct {
	Policy  string   `yaml:"policy" doc:"nearest: by distance; weighted: by weight alone, the same client always to the same region; priority: by order." default:"nearest" enum:"nearest,weighted,priority"`
	Order   []string `yaml:"order" doc:"Regions in order, for policy priority; those not listed come last, the nearest first."`
	SpillAt Percent  `yaml:"spill_at" doc:"Share of a region's capacity past which the excess goes on to the next nearest region with room, until the load is back 10 points below. Farthest clients first." default:"80%"`

	SpillByLatency bool `yaml:"spill_by_latency" doc:"Take a region's capacity for smaller, down to 30%, when its origins' latency is twice its own baseline before spill_at is reached and less load helps." default:"true"`

	Redirect *SteerRedirect `yaml:"redirect" doc:"Send clients on that DNS sent too far, since their resolver hides where they are. Absent: never."`

	Weights map[string]int `yaml:"weights" doc:"Weight by region (default 1): share of the clients among regions that are equally far. 0: only when no other region is left." min:"0" max:"1000"`
}

// SteerRedirect sends a client that reached a region far from it on to a nearer one, by that region's own name.
type SteerRedirect struct {
	Names   map[string]string `yaml:"names" doc:"Hosts of this service by region: our zones answer each with its region for as long as that will do. A request for one of them is never sent on." required:"true"`
	By      string            `yaml:"by" doc:"redirect: a response that leads to the name. alt_svc: an Alt-Svc field (RFC 7838) on HTTPS responses, by which the client may use the other region without a change of the URL." default:"redirect" enum:"redirect,alt_svc"`
	Detour  Duration          `yaml:"detour" doc:"How much longer the round trip to this region has to be than to the better one." default:"50ms" min:"5ms" max:"10s"`
	Status  int               `yaml:"status" doc:"Status of a redirect: 307 or 308." default:"307" min:"307" max:"308"`
	Methods []string          `yaml:"methods" doc:"Methods that are sent on. Of what browsers ask for only pages are, since scripts may not follow to another host; upgrades never." default:"[GET, HEAD]"`
}

// Residency keeps the data of clients from some countries in some jurisdictions.
type Residency struct {
	Clients       []string `yaml:"clients" doc:"Countries (ISO 3166-1: DE, FR), EU, EEA, or unknown for clients whose country is not known." required:"true"`
	Jurisdictions []string `yaml:"jurisdictions" doc:"Jurisdictions of the regions that may serve them." required:"true"`
	Strict        bool     `yaml:"strict" doc:"Never leave these regions: answer 503 rather. Otherwise the others are used when none of these is left." default:"false"`
}

// Pool is the origins of a service in one region.
type Pool struct {
	Origins []string       `yaml:"origins" doc:"URLs: http://host:port or https://host:port. With http+dns:// or https+dns:// all addresses of the host are origins, with http+srv://name or https+srv://name the targets of the name's SRV records; they are looked up again when their TTL is over, and the last good ones stay while that fails. Needed unless there is a file."`
	File    string         `yaml:"file" doc:"A file that lists origins, besides those of origins: a URL and, if it is not 1, a weight on each line; what follows a # is a comment. It is watched, and a change takes effect within two seconds; while it is absent, empty or faulty the last good origins stay." path:"true"`
	Weights map[string]int `yaml:"weights" doc:"Weight by origin URL (default 1): its share of the requests beside the others." min:"1" max:"1000"`
}

// PoolPolicy is the policy of each of a service's pools.
type PoolPolicy struct {
	Balance       string      `yaml:"balance" doc:"How an origin is chosen: least_request (of two drawn, the one with fewer requests in flight), ewma (of two, the one with less latency times requests in flight), round_robin, random, or hash (see hash_by)." default:"least_request" enum:"least_request,ewma,round_robin,random,hash"`
	HashBy        string      `yaml:"hash_by" doc:"What balance: hash keeps on one origin: client, url, header:NAME or cookie:NAME; a request without it goes to any." default:"client"`
	SlowStart     Duration    `yaml:"slow_start" doc:"How long an origin that comes back takes to get its full share; 0s: at once." default:"0s" min:"0s" max:"1h"`
	Check         *Check      `yaml:"check" doc:"Active health check. Absent: origins are believed up until requests fail."`
	Eject         Eject       `yaml:"eject" doc:"Passive ejection: when an origin that fails its requests is left out for a while."`
	Breaker       Breaker     `yaml:"breaker" doc:"Circuit breaker of each origin, and of the pool."`
	HTTP          string      `yaml:"http" doc:"Protocol to the origins: auto (HTTP/2 where a TLS origin offers it, else 1.1), 1.1, 2 (over TLS only), or h2c (HTTP/2 without TLS, as gRPC servers speak it). WebSockets go over HTTP/2 (RFC 8441) with 2 and h2c where the origin offers it, else by 1.1 as other upgrades do." default:"auto" enum:"auto,1.1,2,h2c"`
	TLS           *OriginTLS  `yaml:"tls" doc:"What https origins must prove, and what the gateway proves to them. Absent: the system's CAs, the origin's host name, no client certificate."`
	ProxyProtocol string      `yaml:"proxy_protocol" doc:"Header before each connection that names the client (PROXY protocol v1 or v2); such connections are not reused." default:"off" enum:"off,v1,v2"`
	ConnectionAge Duration    `yaml:"connection_age" doc:"Connections older than this take no new request, so that they follow the origins' load balancers and DNS; 0s: any age." default:"10m" min:"0s" max:"24h"`
	Concurrency   Concurrency `yaml:"concurrency" doc:"Requests in flight to an origin before the less important are refused: a number, adaptive (learned from latency), or off." default:"off"`
}

// OriginTLS is TLS towards the origins.
type OriginTLS struct {
	CA         string `yaml:"ca" doc:"PEM file with the only CAs that the origins' certificates may be of. Absent: the system's." path:"true"`
	ServerName string `yaml:"server_name" doc:"Name that the origins' certificates must have, sent as SNI. Absent: the host of the origin's URL."`
	Cert       string `yaml:"cert" doc:"PEM file with the certificate chain that the gateway shows the origins; needs key." path:"true"`
	Key        string `yaml:"key" doc:"PEM file with its private key." path:"true"`
}

// Concurrency is a limit on an origin's requests in flight. In YAML: a number, adaptive or off.
type Concurrency string

// Limit is the number, -1 for adaptive, 0 for off.
func (c Concurrency) Limit() int {
	if c == "adaptive" {
		return -1
	}
	n, err := strconv.Atoi(string(c))
	if err != nil {
		return 0 // off
	}
	return n
}

// Eject tells when an origin that fails its requests is left out of its pool for a while.
type Eject struct {
	ConsecutiveErrors int      `yaml:"consecutive_errors" doc:"Failures in a row (no connection, reset, timeout, 5xx) that eject an origin; 0: any number is borne." default:"5" min:"0" max:"1000"`
	ErrorRate         Percent  `yaml:"error_rate" doc:"Share of failures in the last 10 seconds that ejects an origin; 0%: any is borne." default:"50%"`
	Latency           int      `yaml:"latency" doc:"An origin whose mean latency in the last 10 seconds is so many times the median of the pool's is ejected; needs three origins. 0: any is borne." default:"5" min:"0" max:"1000"`
	MinRequests       int      `yaml:"min_requests" doc:"Requests of an origin in the last 10 seconds before its error_rate and latency count." default:"20" min:"1" max:"1000000"`
	For               Duration `yaml:"for" doc:"How long; twice in a row twice as long, and so on up to ten times." default:"10s" min:"100ms" max:"1h"`
	Max               Percent  `yaml:"max" doc:"Share of the pool's origins that may be ejected at once; of two or more, one always may." default:"50%"`
}

// Check is an active health check of each origin.
type Check struct {
	Type     string      `yaml:"type" doc:"http: a GET; tcp: a connection; grpc: gRPC's own health service (grpc.health.v1)." default:"http" enum:"http,tcp,grpc"`
	Path     string      `yaml:"path" doc:"Path that is requested." default:"/"`
	Host     string      `yaml:"host" doc:"Host header of the probe. Absent: the origin's own."`
	Expect   StatusRange `yaml:"expect" doc:"Status codes that count as healthy: one (200) or a range (200-299)." default:"200-299"`
	Header   string      `yaml:"header" doc:"Header field that a healthy response has: NAME, or NAME: VALUE. Absent: any."`
	Body     string      `yaml:"body" doc:"Text that the first 64 KiB of a healthy response's body hold. Absent: any."`
	Service  string      `yaml:"service" doc:"Service that grpc asks for. Absent: the server as a whole."`
	Interval Duration    `yaml:"interval" doc:"Time between probes of an origin, jittered by 10%." default:"2s" min:"100ms" max:"10m"`
	Timeout  Duration    `yaml:"timeout" doc:"Time a probe may take." default:"1s" min:"10ms" max:"1m"`
	Rise     int         `yaml:"rise" doc:"Successes in a row that bring an origin up." default:"2" min:"1" max:"100"`
	Fall     int         `yaml:"fall" doc:"Failures in a row that take an origin down." default:"3" min:"1" max:"100"`
}

// Breaker is the circuit breaker of each origin, and of the pool.
type Breaker struct {
	TripAt      Percent  `yaml:"trip_at" doc:"Share of failed requests in the window that opens the breaker." default:"50%"`
	PoolTripAt  Percent  `yaml:"pool_trip_at" doc:"Share of requests that failed in the window, retries and all, that opens the breaker of the whole pool: other regions serve then." default:"80%"`
	MinRequests int      `yaml:"min_requests" doc:"Requests in the window before the share counts." default:"20" min:"1" max:"1000000"`
	Window      Duration `yaml:"window" doc:"Length of the rolling window." default:"10s" min:"1s" max:"10m"`
	Open        Duration `yaml:"open" doc:"How long an open breaker refuses before it tries again." default:"5s" min:"10ms" max:"10m"`
	Probes      int      `yaml:"probes" doc:"Requests let through half-open; as many successes close it." default:"3" min:"1" max:"1000"`
	Requests    int      `yaml:"requests" doc:"Requests in flight to an origin; more are refused." default:"1000" min:"1" max:"1000000"`
	Connections int      `yaml:"connections" doc:"Open connections to an origin; requests wait for one of them." default:"1000" min:"1" max:"1000000"`
	Pending     int      `yaml:"pending" doc:"Requests that wait for a connection to an origin; more are refused." default:"1000" min:"1" max:"1000000"`
}

// Route is a match and a policy inside a service.
type Route struct {
	Match     Match         `yaml:"match" doc:"What the route applies to."`
	Cache     *RouteCache   `yaml:"cache" doc:"off, on (as the response's headers say), or a mapping. Absent: on."`
	To        string        `yaml:"to" doc:"Another service, whose pools serve this route. Absent: the service's own."`
	Canary    *Canary       `yaml:"canary" doc:"Send a part of the clients to another service, and take it back by itself when that is worse."`
	Mirror    *Mirror       `yaml:"mirror" doc:"Send copies of some requests to another service as well; its answers are thrown away, and it can neither slow nor fail a request."`
	Allow     []Prefix      `yaml:"allow" doc:"Client addresses that may come (CIDR or single address); others get a 403. Absent: all."`
	Deny      []Prefix      `yaml:"deny" doc:"Client addresses that may not come, also among those that allow names."`
	RateLimit *RateLimit    `yaml:"rate_limit" doc:"Requests that a client, key or the whole route may make; more get a 429. Counts outlive reloads."`
	Auth      *Auth         `yaml:"auth" doc:"Tokens that clients must show, or another server that is asked about them."`
	BasicAuth *BasicAuth    `yaml:"basic_auth" doc:"Users that may come (RFC 7617); others get a 401. The origin sees no Authorization."`
	CORS      *CORS         `yaml:"cors" doc:"Cross-origin requests that browsers may make; preflights are answered here, and the origins' own CORS headers are replaced."`
	Redirect  *Redirect     `yaml:"redirect" doc:"Send the client elsewhere."`
	Respond   *Respond      `yaml:"respond" doc:"Answer without an origin."`
	Rewrite   *Rewrite      `yaml:"rewrite" doc:"What origins see instead of the path that the client asked for. The cache goes by the client's."`
	Headers   *HeaderPolicy `yaml:"headers" doc:"Header fields that are set or removed on the way."`
	Priority  string        `yaml:"priority" doc:"Who is refused last when the pool's concurrency is at its limit: critical may fill all of it, normal 90%, background half." default:"normal" enum:"critical,normal,background"`
	Timeout   RouteTimeout  `yaml:"timeout" doc:"Bounds on the time origins may take."`
	Retry     Retry         `yaml:"retry" doc:"When a failed attempt is tried on another origin."`
	Hedge     *Hedge        `yaml:"hedge" doc:"A second attempt on another origin when the first is slow; whichever answers first is used. Absent: none."`
}

// Mirror tells which requests are copied. Those with a body of more than 64 KiB are not.
type Mirror struct {
	To     string  `yaml:"to" doc:"The service that gets the copies." required:"true"`
	Weight Percent `yaml:"weight" doc:"Share of the route's requests that is copied. One with a body is when it is over, and only if its body had at most 64 KiB." default:"1%"`
}

// RateLimit is a token bucket for each key (GCRA).
type RateLimit struct {
	Scope string `yaml:"scope" doc:"local: each node counts for itself; fleet: the nodes share what a key may, each by the part of the demand that it has, told once a second. A fleet holds the rate to 5% while the demand is steady; while it moves, for up to 3 seconds, each node may go on with what it had." default:"local" enum:"local,fleet"`
	By    string `yaml:"by" doc:"What has a bucket of its own: client (an IPv6 client by its /64), header:NAME, cookie:NAME, or route (one for all). Requests without the header or cookie share one." default:"client"`
	Rate  Rate   `yaml:"rate" doc:"Requests in the long run." required:"true"`
	Burst int    `yaml:"burst" doc:"Requests at once, after a silence." default:"1" min:"1" max:"1000000"`
}

// BasicAuth names users.
type BasicAuth struct {
	Realm string      `yaml:"realm" doc:"Name of what is protected, shown by browsers." default:"restricted"`
	Users []BasicUser `yaml:"users" doc:"Who may come." required:"true"`
}

// BasicUser is one user.
type BasicUser struct {
	Name string `yaml:"name" doc:"Name of the user." required:"true"`
	Hash string `yaml:"hash" doc:"bcrypt hash of the password (htpasswd -nbB name password)." required:"true" secret:"true"`
}

// CORS tells browsers which pages of other origins may use a route (Fetch standard, CORS protocol).
type CORS struct {
	Origins     []string `yaml:"origins" doc:"Origins such as https://app.example.com, or * for all." required:"true"`
	Methods     []string `yaml:"methods" doc:"Methods that they may use beside GET, HEAD and POST." default:"[PUT, PATCH, DELETE]"`
	Headers     []string `yaml:"headers" doc:"Request header fields that they may set; absent: those that the browser asks for."`
	Expose      []string `yaml:"expose" doc:"Response header fields that they may read."`
	Credentials bool     `yaml:"credentials" doc:"Cookies and authorization may come along; not with the origin *."`
	MaxAge      Duration `yaml:"max_age" doc:"How long browsers remember the answer to a preflight." default:"10m" min:"0s" max:"24h"`
}

// Rewrite changes what origins see.
type Rewrite struct {
	StripPrefix string            `yaml:"strip_prefix" doc:"Taken off the front of the path, such as /api. Absent: nothing."`
	AddPrefix   string            `yaml:"add_prefix" doc:"Put before the path, after strip_prefix. Absent: nothing."`
	Host        string            `yaml:"host" doc:"Host that the origin sees. Absent: the client's."`
	Query       map[string]string `yaml:"query" doc:"Query parameters that are set, by name; an empty one is removed."`
}

// HeaderPolicy changes header fields.
type HeaderPolicy struct {
	Request  HeaderOps `yaml:"request" doc:"On the way to the origin."`
	Response HeaderOps `yaml:"response" doc:"On the way to the client."`
}

// HeaderOps are removals, then settings.
type HeaderOps struct {
	Set    map[string]string `yaml:"set" doc:"Values by name, in place of what is there."`
	Remove []string          `yaml:"remove" doc:"Names."`
}

// Hedge tells when a slow attempt is joined by a second one.
type Hedge struct {
	After  string  `yaml:"after" doc:"How slow: p50, p90, p95 or p99 of the route's own latency as measured, or a duration such as 100ms." default:"p95"`
	Budget Percent `yaml:"budget" doc:"Second attempts as a share of the pool's requests." default:"5%"`
}

// Match selects requests. All of what is given must hold.
type Match struct {
	Path    string   `yaml:"path" doc:"Exact path, or a prefix ending in /*." default:"/*"`
	Methods []string `yaml:"methods" doc:"Methods; absent: all."`
	Flag    string   `yaml:"flag" doc:"A flag that must be on for the client. Absent: none."`
}

// RouteCache is a route's cache policy. In YAML: off, on, or a mapping.
type RouteCache struct {
	Off                  bool      `yaml:"-"`
	TTL                  *Duration `yaml:"ttl" doc:"Freshness of responses that carry none of their own; never overrides no-store or private." min:"0s"`
	StaleWhileRevalidate *Duration `yaml:"stale_while_revalidate" doc:"How long a stale response may be served while it is refreshed (RFC 5861), where the response does not say." min:"0s"`
	StaleIfError         *Duration `yaml:"stale_if_error" doc:"How long a stale response may be served when the origin fails (RFC 5861), where the response does not say." min:"0s"`

	Negative     map[string]Duration `yaml:"negative" doc:"Freshness of responses with these status codes (404, 405, 410, 414, 451, 501) that carry none of their own." min:"0s" max:"1h"`
	Jitter       Percent             `yaml:"jitter" doc:"Lifetimes are shortened by up to this share, by chance, so that what was stored together does not expire together." default:"0%"`
	RefreshAhead Percent             `yaml:"refresh_ahead" doc:"A hit in this last share of an object's lifetime refreshes it in the background, so that what is in use does not expire." default:"0%"`
	RangeFill    bool                `yaml:"range_fill" doc:"A request for a range of what is not stored makes the whole be fetched in the background, so that the next ranges are served from the cache. Off by default, as a client could make origins send much for little." default:"false"`
	Key          CacheKey            `yaml:"key" doc:"What tells two requests apart, beside scheme, host, port and path."`
}

// CacheKey configures a route's cache key.
type CacheKey struct {
	Query   KeyQuery `yaml:"query" doc:"Which query parameters count. What does not count is not sent to the origin when its answer may be stored."`
	Headers []string `yaml:"headers" doc:"Request headers that count, as if the response's Vary named them."`
	Cookies []string `yaml:"cookies" doc:"Cookies that count."`
}

// KeyQuery chooses query parameters.
type KeyQuery struct {
	Ignore []string `yaml:"ignore" doc:"Parameters that do not count: a name, or the begin of one and *."`
	Keep   []string `yaml:"keep" doc:"The only parameters that count; absent: all."`
	Sort   bool     `yaml:"sort" doc:"The order of parameters with different names does not count."`
}

// RouteTimeout bounds the time that origins may take.
type RouteTimeout struct {
	Connect   Duration `yaml:"connect" doc:"Time to connect to an origin, TLS included." default:"2s" min:"1ms" max:"1m"`
	FirstByte Duration `yaml:"first_byte" doc:"Time from the request sent to the response's headers." default:"30s" min:"1ms" max:"1h"`
	Total     Duration `yaml:"total" doc:"The whole request, body included; 0s: unbounded." default:"0s" min:"0s" max:"24h"`
	Idle      Duration `yaml:"idle" doc:"Longest silence in a response body or an upgraded connection." default:"5m" min:"1s" max:"24h"`
}

// Retry tells when a failed attempt is tried again on another origin.
type Retry struct {
	Attempts int      `yaml:"attempts" doc:"Attempts in all, the first included; 1: never retry." default:"2" min:"1" max:"10"`
	On       []string `yaml:"on" doc:"Failures that are retried; only idempotent methods (RFC 9110 section 9.2.2) and requests with an Idempotency-Key are, except for connect, where nothing was sent." default:"[connect, reset, timeout, 502, 503, 504]" enum:"connect,reset,timeout,500,502,503,504"`
	Budget   Percent  `yaml:"budget" doc:"Retries as a share of the pool's live requests; at least 3 a second are always allowed." default:"20%"`
}
