package configs

// Affinity tells where the data of each user lives.
type Affinity struct {
	By       string         `yaml:"by" doc:"What names the user: header:NAME, cookie:NAME, or client (the address). Requests without it go by steering." required:"true"`
	Home     string         `yaml:"home" doc:"hash: a consistent hash over regions says where a user's data lives; lookup: a service says, and the hash for users that it knows nothing of." default:"hash" enum:"hash,lookup"`
	Regions  map[string]int `yaml:"regions" doc:"The hash ring: regions and their weights. Absent: every region that has a pool, each with weight 1." min:"1" max:"1000"`
	Next     map[string]int `yaml:"next" doc:"The hash ring that users are moved to, as far as operators say (landfall home migrate): what the new home does not have (404) is read from the old one. Absent: nobody moves." min:"1" max:"1000"`
	Handover Duration       `yaml:"handover" doc:"Writes of a user wait for so long before and after its move, in which nodes' clocks may disagree and the last writes to its old home are on their way." default:"1s" min:"0s" max:"30s"`
	Strict   bool           `yaml:"strict" doc:"Writes of a user whose home can't be reached are refused with a 503, rather than served by the next region of the ring." default:"false"`
	Lookup   *HomeLookup    `yaml:"lookup" doc:"The service that says where users' data lives, for home: lookup."`
}

// HomeLookup is a service that says where a user's data lives.
type HomeLookup struct {
	URL     string   `yaml:"url" doc:"http or https URL; {key} in it is replaced by the user's key. It answers 200 with a region's name (text, or JSON with region), or 404 for a user that it does not know." required:"true"`
	TTL     Duration `yaml:"ttl" doc:"How long an answer holds." default:"1m" min:"100ms" max:"24h"`
	Stale   Duration `yaml:"stale" doc:"How long an old answer goes on to hold while the service is asked again, or fails." default:"1h" min:"0s" max:"168h"`
	Timeout Duration `yaml:"timeout" doc:"Time the service may take. Only requests of users that nothing is known of wait for it." default:"200ms" min:"10ms" max:"5s"`
	Entries int      `yaml:"entries" doc:"Users that are remembered, about 200 bytes each." default:"100000" min:"64" max:"10000000"`
}
