package configs

// Paths tells how a service's paths are read.
type Paths struct {
	MergeSlashes   *bool  `yaml:"merge_slashes" doc:"Take //a///b for /a/b, as most origins do." default:"true"`
	EscapedSlashes string `yaml:"escaped_slashes" doc:"What %2F is: keep (a part of a name, as RFC 3986 has it), decode (a slash, for origins that take it for one), or refuse (400)." default:"keep" enum:"keep,decode,refuse"`
	Ambiguous      string `yaml:"ambiguous" doc:"A path that origins may read differently (escaped slashes and backslashes, ;parameters, what is escaped twice; not letter case, trailing dots and spaces, an escaped ? or #), such as /public/..%2Fadmin, where that reading has another route whose allow, deny, auth, basic_auth, rate_limit, respond or redirect is not the same, or none: refuse (400) or allow." default:"refuse" enum:"refuse,allow"`
}

// Redirect sends the client elsewhere.
type Redirect struct {
	To     string `yaml:"to" doc:"URL or path; {path} in it is the request's path, {query} its query with the ?, {host} its host." required:"true"`
	Status int    `yaml:"status" doc:"301, 302, 303, 307 or 308." default:"308" min:"301" max:"308"`
}

// Respond is a fixed response.
type Respond struct {
	Status      int    `yaml:"status" doc:"Status code." default:"200" min:"200" max:"599"`
	Body        string `yaml:"body" doc:"Body, at most 64 KiB. Absent: empty."`
	ContentType string `yaml:"content_type" doc:"Media type of the body." default:"text/plain; charset=utf-8"`
}

// Flag is a switch that routes can depend on, and that operators turn at run time. Whoever it is on for stays among those
// it is on for while its weight grows.
type Flag struct {
	Weight Percent `yaml:"weight" doc:"Share of the clients that it is on for, until an operator sets another (landfall flag set)." default:"0%"`
	By     string  `yaml:"by" doc:"What it is the same for: client, header:NAME or cookie:NAME; a request without it goes by its client's address." default:"client"`
}

// Canary sends a part of a route's requests to another service and compares the two.
type Canary struct {
	To       string   `yaml:"to" doc:"The service whose pools serve that part. All canaries of a service to the same one are one canary, and must say the same." required:"true"`
	Weight   Percent  `yaml:"weight" doc:"Share of the clients that it serves, until an operator sets another (landfall canary set)." default:"5%"`
	Header   string   `yaml:"header" doc:"Requests with this header field go there too: NAME, or NAME: VALUE. Absent: none."`
	Cookie   string   `yaml:"cookie" doc:"Requests with this cookie go there too: NAME, or NAME=VALUE. Absent: none."`
	Sticky   string   `yaml:"sticky" doc:"What keeps a client on its side: cookie (landfall-side, a random number of no meaning), client (its address), or off: each request is drawn anew." default:"cookie" enum:"cookie,client,off"`
	Rollback Rollback `yaml:"rollback" doc:"When the canary is taken back without being asked: by a test of what it does against what the stable side does at the same time."`
}

// Rollback tells when a canary is worse than the stable side.
type Rollback struct {
	ErrorRate   Percent  `yaml:"error_rate" doc:"How much larger the share of its requests that fail (5xx, no answer) may be; 100%: failures are borne." default:"2%"`
	LatencyP99  Factor   `yaml:"latency_p99" doc:"How many times the 99th percentile of its latency may be; 0x: any is borne." default:"2x"`
	Window      Duration `yaml:"window" doc:"How far back is looked." default:"1m" min:"5s" max:"1h"`
	MinRequests int      `yaml:"min_requests" doc:"Requests of each side in the window before it is judged." default:"100" min:"10" max:"1000000"`
	Confidence  Percent  `yaml:"confidence" doc:"How sure a rollback must be: of a canary that is just as much worse as is borne, at least this share of the windows pass without one." default:"99%"`
}

// Chaos lets faults be made on purpose, for drills.
type Chaos struct {
	Enabled bool             `yaml:"enabled" doc:"Let the admin API make faults (landfall fault add), and make those named here. Not for where nobody drills." default:"false"`
	Faults  map[string]Fault `yaml:"faults" doc:"Faults that are made all the time, by name."`
}

// Fault is trouble between the gateway and origins.
type Fault struct {
	Service  string   `yaml:"service" doc:"Whose requests meet it. Absent: every service's."`
	Route    string   `yaml:"route" doc:"The path pattern of the routes that meet it. Absent: all."`
	Origin   string   `yaml:"origin" doc:"The origin, by its URL, that seems to be at fault. Absent: each of them."`
	Share    Percent  `yaml:"share" doc:"Share of the attempts that meet it." default:"100%"`
	Delay    Duration `yaml:"delay" doc:"How much later the origin is asked." default:"0s" min:"0s" max:"10m"`
	Abort    int      `yaml:"abort" doc:"Status of an answer in the origin's place; 0: none." default:"0" min:"0" max:"599"`
	Reset    bool     `yaml:"reset" doc:"The connection breaks in place of an answer." default:"false"`
	SlowBody Size     `yaml:"slow_body" doc:"Bytes of a response's body a second; 0: as they come." default:"0" min:"0" max:"1GiB"`
}

// Auth tells who may come, by asking more than a password.
type Auth struct {
	JWT     *JWT         `yaml:"jwt" doc:"Bearer tokens (RFC 6750) that are JSON Web Tokens of an issuer. The origin gets the token too."`
	Forward *ForwardAuth `yaml:"forward" doc:"Another server that is asked about each request."`
}

// JWT checks bearer tokens (RFC 7519, RFC 8725). Only signatures by public keys are taken: RS, PS, ES and EdDSA.
type JWT struct {
	Issuer   string            `yaml:"issuer" doc:"The claim iss." required:"true"`
	JWKS     string            `yaml:"jwks" doc:"URL of the issuer's keys (RFC 7517): https, or http on loopback." required:"true"`
	Audience StringList        `yaml:"audience" doc:"The claim aud must name one of these." required:"true"`
	Leeway   Duration          `yaml:"leeway" doc:"How much clocks may differ." default:"30s" min:"0s" max:"5m"`
	Refresh  Duration          `yaml:"refresh" doc:"When the keys are fetched again; a shorter max-age of theirs is heeded, down to a minute. A token that names a key which is not there has them fetched too, at most every 2 seconds: so long, and the time of a fetch, may a new key go unknown, whatever keys others invent." default:"15m" min:"1m" max:"24h"`
	Stale    Duration          `yaml:"stale" doc:"For how much longer the keys serve when they can't be fetched; then requests get a 503." default:"24h" min:"0s" max:"30d"`
	Require  map[string]string `yaml:"require" doc:"Claims that must have this value, or hold it as an element of a list or as a word, as scope does; others get a 403."`
	Headers  map[string]string `yaml:"headers" doc:"Header fields that tell the origin a claim's value, in place of the client's own; they count for the cache's key."`
}

// ForwardAuth asks another server about each request, by a GET without the body.
type ForwardAuth struct {
	URL             string   `yaml:"url" doc:"Where to ask. A 2xx lets the request through; any other answer below 500 goes to the client. X-Forwarded-Method, -Proto, -Host, -Uri and -For tell of the request." required:"true"`
	Timeout         Duration `yaml:"timeout" doc:"Time an answer may take." default:"1s" min:"10ms" max:"1m"`
	OnError         string   `yaml:"on_error" doc:"When there is no answer in time, or a 5xx: deny (503) or allow." default:"deny" enum:"deny,allow"`
	Concurrent      int      `yaml:"concurrent" doc:"Questions at once; beyond them it is as if there were no answer." default:"1000" min:"1" max:"100000"`
	RequestHeaders  []string `yaml:"request_headers" doc:"The request's header fields that go along." default:"[Authorization, Cookie]"`
	ResponseHeaders []string `yaml:"response_headers" doc:"Header fields of a 2xx answer that the origin gets, in place of the client's own; they count for the cache's key."`
}
