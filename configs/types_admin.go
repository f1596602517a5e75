package configs

// Admin tells who may use the admin API.
type Admin struct {
	Tokens []Token `yaml:"tokens" doc:"Bearer tokens. A listener that is not on loopback needs at least one."`
	PProf  bool    `yaml:"pprof" doc:"Serve /debug/pprof."`
}

// Token is a bearer token of the admin API.
type Token struct {
	Name  string   `yaml:"name" doc:"Who holds it; written to the events." required:"true"`
	Hash  string   `yaml:"hash" doc:"bcrypt hash of the token (htpasswd -nbB name token)." required:"true" secret:"true"`
	Allow []string `yaml:"allow" doc:"What it may do." default:"[read]" enum:"read,drain,purge,fleet"`
}

// Observe configures the logs.
type Observe struct {
	LogLevel  string    `yaml:"log_level" doc:"Lowest level that is logged." default:"info" enum:"debug,info,warn,error"`
	LogFormat string    `yaml:"log_format" doc:"Form of the log, on standard error." default:"text" enum:"text,json"`
	AccessLog AccessLog `yaml:"access_log" doc:"One record a request. Requests that failed here or at the origin (5xx) are always logged; of those that were shed for want of room, ten a second."`
}

// AccessLog configures the access log.
type AccessLog struct {
	Path   string  `yaml:"path" doc:"stdout, stderr, off, or a file that is appended to." default:"stdout"`
	Sample Percent `yaml:"sample" doc:"Share of the requests that is logged." default:"0%"`
}
