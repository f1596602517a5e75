package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// parameter is one parameter of a query.
type parameter struct {
	name     string
	doc      string
	kind     string // JSON Schema type
	example  string
	required bool
}

// The answers of lists are objects, so that they can grow.
type (
	regionList struct {
		Regions List[Region] `json:"regions" doc:"Every region of the config, sorted by name."`
	}
	nodeList struct {
		Nodes List[Node] `json:"nodes" doc:"Every node known, dead ones too, sorted by name."`
	}
	serviceList struct {
		Services List[Service] `json:"services" doc:"Every service, sorted by name."`
	}
	poolList struct {
		Service string     `json:"service" doc:"The service."`
		Pools   List[Pool] `json:"pools" doc:"Its pools, sorted by region."`
	}
	certList struct {
		Certs List[Cert] `json:"certs" doc:"The certificates that this node serves."`
	}
	drainList struct {
		Drains List[Drain] `json:"drains" doc:"The drains in force, sorted by kind and name."`
	}
	weightList struct {
		Weights List[Weight] `json:"weights" doc:"The weights set at run time, sorted by service and region."`
	}
	eventList struct {
		Events List[Event] `json:"events" doc:"The events, oldest first."`
		Last   uint64      `json:"last" doc:"Give it as since to read on from here."`
	}
)

// operations is the whole API: every route of the mux, and nothing else, is in it.
func (a *API) operations() []operation {
	return slices.Concat(a.reading(), a.changingOperations(), a.breakerOperations(), a.homeOperations(), a.flagOperations(), a.canaryOperations(), a.faultOperations(), a.verdictOperations(), a.keyOperations(), a.raw())
}

func (a *API) reading() []operation {
	return []operation{
		get("/v1/status", "getStatus", "The fleet at a glance", Status{}, func(*call) (any, error) { return a.backend.Status(), nil }),
		get("/v1/regions", "listRegions", "The regions and their health", regionList{}, func(*call) (any, error) {
			return regionList{a.backend.Regions()}, nil
		}),
		get("/v1/nodes", "listNodes", "The nodes of the fleet", nodeList{}, func(*call) (any, error) { return nodeList{a.backend.Nodes()}, nil }),
		get("/v1/services", "listServices", "The services and where they are up", serviceList{}, func(*call) (any, error) {
			return serviceList{a.backend.Services()}, nil
		}),
		get("/v1/services/{service}/pools", "listPools", "A service's pools and their origins", poolList{}, a.pools),
		get("/v1/cache", "getCache", "This node's cache", CacheStats{}, func(*call) (any, error) { return a.backend.Cache(), nil }),
		get("/v1/certs", "listCerts", "This node's certificates", certList{}, func(*call) (any, error) { return certList{a.backend.Certs()}, nil }),
		get("/v1/config", "getConfig", "Which config runs where", ConfigInfo{}, func(*call) (any, error) { return a.backend.Config(), nil }),
		get("/v1/drains", "listDrains", "The drains in force", drainList{}, func(*call) (any, error) { return drainList{a.backend.Drains()}, nil }),
		get("/v1/weights", "listWeights", "The weights set at run time", weightList{}, func(*call) (any, error) { return weightList{a.backend.Weights()}, nil }),
		get("/v1/breakers", "listBreakers", "Operators' orders on circuit breakers", breakerList{}, func(*call) (any, error) {
			return breakerList{a.backend.BreakerOrders()}, nil
		}),
		get("/v1/purges/{id}", "getPurge", "How a purge stands", PurgeResult{}, a.purgeByID),
		get("/v1/explain", "explain", "Where a client goes for a URL, and why", Explanation{}, a.explain,
			parameter{name: "url", kind: "string", required: true, example: "https://shop.example.com/",
				doc: "An absolute http or https URL, or a host name (then https://HOST/)."},
			parameter{name: "client", kind: "string", example: "192.0.2.7", doc: "The client's IP address; absent: a client of whom nothing is known."}),
	}
}

func (a *API) changingOperations() []operation {
	drain := func(method, id, summary, path, kind string) operation {
		o := operation{method: method, path: path, id: id, summary: summary, scope: scopeDrain, result: DrainResult{},
			query: []parameter{timeoutParameter}, errors: []int{http.StatusConflict}}
		if method == http.MethodPut {
			o.body = DrainSpec{}
		}
		o.handle = func(w http.ResponseWriter, c *call) (int, any, error) { return a.setDrain(w, c, kind) }
		return o
	}
	return []operation{
		drain(http.MethodPut, "drainRegion", "Move traffic away from a region", "/v1/regions/{region}/drain", DrainRegion),
		drain(http.MethodDelete, "undrainRegion", "End a region's drain", "/v1/regions/{region}/drain", DrainRegion),
		drain(http.MethodPut, "drainNode", "Move traffic away from a node", "/v1/nodes/{node}/drain", DrainNode),
		drain(http.MethodDelete, "undrainNode", "End a node's drain", "/v1/nodes/{node}/drain", DrainNode),
		drain(http.MethodPut, "drainService", "Move a service's traffic away from a region", "/v1/services/{service}/regions/{region}/drain", DrainService),
		drain(http.MethodDelete, "undrainService", "End a service's drain", "/v1/services/{service}/regions/{region}/drain", DrainService),
		{method: http.MethodPut, path: "/v1/weights/{service}/{region}", id: "setWeight", summary: "Set a service's weight in a region, in place of the config's",
			scope: scopeDrain, query: []parameter{timeoutParameter}, body: WeightSpec{}, result: WeightResult{},
			errors: []int{http.StatusNotFound, http.StatusConflict}, handle: a.setWeight},
		{method: http.MethodDelete, path: "/v1/weights/{service}/{region}", id: "resetWeight", summary: "Let the config's weight hold again",
			scope: scopeDrain, query: []parameter{timeoutParameter}, result: WeightResult{},
			errors: []int{http.StatusNotFound, http.StatusConflict}, handle: a.setWeight},
		drain(http.MethodPut, "drainOrigin", "Use an origin only when no other is left", "/v1/origins/{origin}/drain", DrainOrigin),
		drain(http.MethodDelete, "undrainOrigin", "End an origin's drain", "/v1/origins/{origin}/drain", DrainOrigin),
		{method: http.MethodPost, path: "/v1/purge", id: "purge", summary: "Invalidate cached objects on every node",
			scope: scopePurge, query: []parameter{waitParameter, timeoutParameter}, body: PurgeRequest{}, result: PurgeResult{},
			errors: []int{http.StatusNotFound}, handle: a.purge},
	}
}

// raw are the operations that write something else than JSON.
func (a *API) raw() []operation {
	text := "text/plain"
	return []operation{
		{method: http.MethodGet, path: "/v1/events", id: "listEvents", summary: "What happened on this node; as a stream with Accept: text/event-stream",
			scope: scopeRead, result: eventList{}, query: eventParameters(), handle: a.listEvents},
		{method: http.MethodGet, path: "/v1/openapi.json", id: "getOpenAPI", summary: "The description of this API (OpenAPI 3.1)",
			scope: scopeRead, media: "application/json", handle: a.openAPIDocument},
		{method: http.MethodGet, path: "/healthz", id: "getHealth", summary: "The process lives", scope: scopeOpen, media: text, handle: a.healthz},
		{method: http.MethodGet, path: "/readyz", id: "getReadiness", summary: "The node may take traffic", scope: scopeOpen, media: text,
			errors: []int{http.StatusServiceUnavailable}, handle: a.readyz},
		{method: http.MethodGet, path: "/metrics", id: "getMetrics", summary: "Metrics for Prometheus", scope: scopeRead, media: text, handle: a.metricsHandler()},
		{method: http.MethodGet, path: "/debug/pprof/{$}", id: "listProfiles", summary: "Go's profiles, when the config allows them", scope: scopeRead,
			media: "text/html", errors: []int{http.StatusNotFound}, handle: a.profile},
		{method: http.MethodGet, path: "/debug/pprof/{profile}", id: "getProfile", summary: "One of Go's profiles, when the config allows them", scope: scopeRead,
			media: "application/octet-stream", errors: []int{http.StatusNotFound}, handle: a.profile},
		{method: http.MethodGet, path: "/{$}", id: "getIndex", summary: "What is here", scope: scopeRead, media: "text/html", handle: a.index},
	}
}

// get is an operation that reads something as JSON.
func get(path, id, summary string, result any, read func(*call) (any, error), query ...parameter) operation {
	o := operation{method: http.MethodGet, path: path, id: id, summary: summary, scope: scopeRead, result: result, query: query}
	if len(query) == 0 && len(pathNames(path)) > 0 || id == "explain" {
		o.errors = []int{http.StatusNotFound}
	}
	o.handle = func(_ http.ResponseWriter, c *call) (int, any, error) {
		v, err := read(c)
		return http.StatusOK, v, err
	}
	return o
}

// checkQuery refuses parameters that are unknown, given twice or missing, all of them together.
func checkQuery(r *http.Request, known []parameter) error {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalidBody("the query can not be read: " + err.Error())
	}
	var names []string
	var refused []FieldError
	for _, p := range known {
		names = append(names, p.name)
		if p.required && values.Get(p.name) == "" {
			refused = append(refused, FieldError{p.name, "is missing. " + p.doc})
		}
	}
	for name, given := range values {
		switch {
		case !slices.Contains(names, name):
			refused = append(refused, FieldError{clip(name, 80), "unknown parameter" + didYouMean(name, names)})
		case len(given) > 1:
			refused = append(refused, FieldError{name, fmt.Sprintf("given %d times", len(given))})
		}
	}
	if len(refused) == 0 {
		return nil
	}
	slices.SortFunc(refused, func(x, y FieldError) int { return strings.Compare(x.Field, y.Field) })
	p := invalid(refused[:min(len(refused), maxKnown)]...)
	p.Known = names
	return p
}
