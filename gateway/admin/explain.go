package admin

// Explanation is where a client goes for a URL, and why: the same decision that DNS answers and requests follow.
type Explanation struct {
	URL      string                `json:"url" doc:"What was asked, as an absolute URL."`
	Host     string                `json:"host" doc:"Its host name, normalised."`
	Client   ExplainClient         `json:"client" doc:"Whom the decision is for."`
	Service  string                `json:"service" doc:"The service that has the host."`
	Mode     string                `json:"mode" doc:"Whether the decision was an ordinary one: a closed list of routing."`
	ModeText string                `json:"mode_text" doc:"The mode in words."`
	Regions  List[ExplainedRegion] `json:"regions" doc:"Every region: the candidates first, best first, then those passed over."`
	Answer   *DNSAnswer            `json:"answer,omitempty" doc:"What DNS answers this client; absent where the host is in none of the fleet's zones."`
	Route    *ExplainedRoute       `json:"route,omitempty" doc:"The route that matches; absent when none does and the answer is a 404."`
	Pool     *ExplainedPool        `json:"pool,omitempty" doc:"The pool that the chosen region would use; absent without a usable region."`
	Steering *ExplainedSteering    `json:"steering,omitempty" doc:"What a request of this client meets that arrives in the answering node's region all the same; absent where the service has no steering.redirect, or nothing better is known."`
}

// ExplainedSteering is what becomes of a request that reaches another region than the better one all the same.
type ExplainedSteering struct {
	From  string  `json:"from" doc:"The region of the node that answers this question."`
	To    string  `json:"to" doc:"The region that the client should rather be in."`
	Name  string  `json:"name,omitempty" doc:"Host that leads there; absent: the service has none for it."`
	By    string  `json:"by" doc:"How the client is told." enum:"redirect,alt_svc"`
	Saves float64 `json:"saves_ms" doc:"By how much the better region's round trip is shorter, in milliseconds."`
	Must  bool    `json:"must,omitempty" doc:"Residency keeps the client's data out of the region that it reached."`
	Sent  bool    `json:"sent" doc:"It is sent on; otherwise the detour is too small, or there is no name."`
}

// ExplainClient is a client and what is known of its place.
type ExplainClient struct {
	Address  string    `json:"address,omitempty" doc:"Its address; absent when the question named none."`
	Country  string    `json:"country,omitempty" doc:"Its country, ISO 3166-1 alpha-2, where known."`
	Location *Location `json:"location,omitempty" doc:"Its place, where known."`
	Source   string    `json:"source" doc:"Where the place comes from, for instance geoip or none."`
}

// ExplainedRegion is one region's place in a decision.
type ExplainedRegion struct {
	Region         string       `json:"region" doc:"Name of the region."`
	Rank           int          `json:"rank" doc:"1 is where the client goes; counted over all regions, passed-over ones behind the candidates."`
	Usable         bool         `json:"usable" doc:"It is a candidate for this client."`
	State          string       `json:"state" doc:"Its state for the service." enum:"up,unknown,draining,down"`
	Reason         string       `json:"reason" doc:"Why it stands where it stands: a closed list of routing."`
	ReasonText     string       `json:"reason_text" doc:"The reason in words."`
	DistanceKM     *float64     `json:"distance_km,omitempty" doc:"Distance from the client; absent where either place is unknown."`
	DistanceSource string       `json:"distance_source" doc:"Where the distance comes from." enum:"none,coordinates,peer_rtt,geography,measured_as,measured_wide,measured"`
	RTT            *float64     `json:"rtt_ms,omitempty" doc:"Round trip that ranks it, in milliseconds: measured, or what the distance lets expect; absent where nothing is known."`
	Load           *float64     `json:"load,omitempty" doc:"Its load as a share of its capacity; absent without a capacity."`
	Requests       float64      `json:"requests_per_second" doc:"Clients' requests that its nodes take."`
	Waiting        float64      `json:"waiting,omitempty" doc:"Requests of the service that wait for its origins there."`
	Latency        float64      `json:"latency_ratio,omitempty" doc:"Latency of the service's origins there, as a multiple of its own baseline; absent with too few answers to say."`
	Fit            float64      `json:"capacity_found,omitempty" doc:"Share of its capacity that it was found to be able to take, by its latency; absent: all of it. The load is measured by it."`
	SpillBeyond    float64      `json:"spill_beyond_ms,omitempty" doc:"The clients that it sends on are those with a longer round trip; absent: drawn by a hash, since distances are not known."`
	Moved          float64      `json:"moved,omitempty" doc:"Share of the clients that a gradual drain has moved away from it so far."`
	Spill          float64      `json:"spill,omitempty" doc:"Share of the clients that it sends on, since it is full."`
	Weight         int          `json:"weight" doc:"Its weight for the service."`
	Returning      float64      `json:"returning,omitempty" doc:"Share of the clients that are not let in yet, since the service is coming back there."`
	Evidence       string       `json:"evidence,omitempty" doc:"What its state rests on: who saw what."`
	Nodes          List[string] `json:"nodes" doc:"Its nodes that take traffic, sorted."`
}

// DNSAnswer is what the fleet's name servers answer.
type DNSAnswer struct {
	Addresses List[string] `json:"addresses" doc:"Addresses, in the order of the answer."`
	TTL       int          `json:"ttl_s" doc:"Time to live, in seconds: short while something is changing, longer when calm."`
	TTLText   string       `json:"ttl_text" doc:"Why it is that long: for how long all has been calm, or what changed last and when."`
	Scope     int          `json:"scope" doc:"Scope prefix length told to resolvers that send the client's subnet (RFC 7871)."`
}

// ExplainedRoute is the route that a request takes inside its service.
type ExplainedRoute struct {
	Index int    `json:"index" doc:"Its place in the config, from 0."`
	Match string `json:"match" doc:"What it matches, for instance GET /api/*."`
	Cache string `json:"cache" doc:"Its cache policy in words, for instance off or ttl 5m."`
	// Holders are whom a miss here asks before the origin.
	Holders List[Holder] `json:"holders" doc:"Whose caches a miss of the answering node asks before the origin, in order; empty: it asks the origin itself."`

	Canary *ExplainedCanary `json:"canary,omitempty" doc:"The route's canary; absent where it has none."`
}

// ExplainedCanary is how a route's requests are shared between its two sides.
type ExplainedCanary struct {
	To      string  `json:"to" doc:"The service that serves the canary's part."`
	Weight  float64 `json:"weight" doc:"Percent of the clients that it serves now."`
	Stopped bool    `json:"stopped,omitempty" doc:"Nobody goes there: an operator stopped it, or it was rolled back."`
	Sticky  string  `json:"sticky" doc:"What keeps a client on its side: cookie, client (its address) or off." enum:"cookie,client,off"`
	Header  string  `json:"header,omitempty" doc:"The header field by which a request asks for the canary."`
	Cookie  string  `json:"cookie,omitempty" doc:"The cookie by which a request asks for the canary."`
	Side    string  `json:"side,omitempty" doc:"The client's side; absent where a cookie or chance settles it, or no client was given." enum:"stable,canary"`
	Rules   string  `json:"rules" doc:"When it is taken back by itself, in words: the sample, the confidence and what is borne."`
}

// Holder is another node whose cache is asked.
type Holder struct {
	Role   string `json:"role" doc:"peer: the URL's holder in the node's own region; shield: in the region that asks the origin for all."`
	Region string `json:"region" doc:"Its region."`
	Node   string `json:"node" doc:"Its name."`
}

// ExplainedPool is the pool that a request would use.
type ExplainedPool struct {
	Region  string       `json:"region" doc:"The pool's region, or any."`
	Origins List[Origin] `json:"origins" doc:"Its origins."`
}
