package cache

import "context"

// Asking is what passes, beside request and response, between a fetch that the cache makes and the function that carries
// it out: whether the caches of other nodes may answer it, and what they said of their answer.
type Asking struct {
	// Shareable: another node's cache may answer, and collapse it with those of others. Set by the cache. It is not for
	// what is personal, nor where the last answer could not be shared: nobody gains by the detour then.
	Shareable bool
	// Holds: an object of this cache is being renewed, so Elsewhere has no say. Set by the cache.
	Holds bool

	// Set by the fetch before it returns:

	Detail    string // where the answer comes from, a token for Cache-Status
	Elsewhere bool   // a node nearby keeps the answer and it is asked for seldom: it is not stored here, too
	Unsure    bool   // stale, given for want of an answer of the origin's: neither stored nor taken for a confirmation
}

type askingKey struct{}

// AskingOf is the Asking of a fetch, by its context; nil where the request passes by the cache.
func AskingOf(ctx context.Context) *Asking {
	a, _ := ctx.Value(askingKey{}).(*Asking)
	return a
}

func withAsking(ctx context.Context, a *Asking) context.Context {
	return context.WithValue(ctx, askingKey{}, a)
}

// Fields that only caches of one fleet say to each other. What an origin or a client sends under these names must be
// taken out before it comes here.
const (
	// HeaderKey has a surrogate key, one a line, as keys may hold both spaces and commas.
	HeaderKey = "Landfall-Key"
	// HeaderCoded is on a response whose content coding was applied by a Recoder, not by the origin.
	HeaderCoded = "Landfall-Coded"
	// HeaderStale is on a stale response that was given for want of an answer of the origin's.
	HeaderStale = "Landfall-Stale"
)

// shareable tells whether other caches are worth asking for a request.
func (x *exchange) shareable() bool {
	return x.header["Authorization"] == nil && !x.request.noStore && !x.c.marks.has(x.key, x.now)
}
