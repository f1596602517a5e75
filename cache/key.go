package cache

import (
	"hash/maphash"
	"net/http"
	"strings"
)

// Request is the small view of a request that the key is a function of, and that variants are selected by.
type Request struct {
	Service  string      // name of the service that the request was matched to
	Method   string      // as sent
	Scheme   string      // "http" or "https"
	Host     string      // as sent, with or without port
	Path     string      // escaped path; "" is "/"
	RawQuery string      // without "?"
	Header   http.Header // selects the variant. nil: the header of the request given to Serve

	Policy *KeyPolicy // of the route; nil: the query to the letter, and no header
	// Variant tells apart what the same URL is answered by: it must not begin with a digit or -. Empty: the usual.
	Variant string
}

// Key identifies what a request asks for, but for the fields that Vary names. Two requests have equal keys exactly when
// a response to one may answer the other as far as the URL goes. It is comparable; the method is not in it, as GET and
// HEAD share responses and nothing else is stored.
type Key struct {
	Service string
	Scheme  string
	Host    string // lower case, without port
	Port    string // "" for the scheme's own
	Path    string
	Query   string // what counts of it
	Extra   string // the variant, and header fields and cookies that the key policy names
}

// urlKey is what a purge names: a URL in all schemes and ports, whatever the headers.
type urlKey struct{ service, host, path, query string }

// KeyOf is the key of a request. It is pure, and it allocates only to lower-case a host.
func KeyOf(v Request) Key {
	host, port := splitPort(v.Host)
	k := Key{
		Service: v.Service, Scheme: lowerASCII(v.Scheme), Host: lowerASCII(host), Port: port,
		Path: v.Path, Query: v.Policy.Query(v.RawQuery), Extra: v.Variant + v.Policy.extra(v.Header),
	}
	if k.Path == "" {
		k.Path = "/"
	}
	if (k.Scheme == "http" && port == "80") || (k.Scheme == "https" && port == "443") {
		k.Port = ""
	}
	return k
}

func (k Key) url() urlKey { return urlKey{k.Service, k.Host, k.Path, k.Query} }

// authority is the Host of a fetch for this key.
func (k Key) authority() string {
	if k.Port == "" {
		return k.Host
	}
	return k.Host + ":" + k.Port
}

// clone copies the strings, which are otherwise cut out of a request's whole header block and would keep it in memory.
func (k Key) clone() Key {
	return Key{
		interned(k.Service), interned(k.Scheme), interned(k.Host),
		strings.Clone(k.Port), strings.Clone(k.Path), strings.Clone(k.Query), strings.Clone(k.Extra),
	}
}

// hash spreads URLs over shards. Only the spread rests on it: equality is the key's own.
func (u urlKey) hash(seed maphash.Seed) uint64 {
	h := maphash.String(seed, u.path)
	h = h*0x9E3779B97F4A7C15 ^ maphash.String(seed, u.query)
	h = h*0x9E3779B97F4A7C15 ^ maphash.String(seed, u.host)
	return h*0x9E3779B97F4A7C15 ^ maphash.String(seed, u.service)
}

// splitPort cuts a decimal port off a host; an empty port is none. What is not host:port stays whole.
func splitPort(hostport string) (host, port string) {
	i := strings.LastIndexByte(hostport, ':')
	if i < 0 {
		return hostport, ""
	}
	host, port = hostport[:i], hostport[i+1:]
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	if strings.IndexByte(host, ':') >= 0 && !bracketed {
		return hostport, ""
	}
	for _, d := range []byte(port) {
		if d < '0' || d > '9' {
			return hostport, ""
		}
	}
	return host, port
}

// lowerASCII lowers A to Z and leaves other bytes alone: strings.ToLower would map different invalid bytes to one rune,
// and so different hosts to one key.
func lowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
