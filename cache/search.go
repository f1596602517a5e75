package cache

import (
	"hash/maphash"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/dunglas/httpsfv"
)

// No-Vary-Search (draft-ietf-httpbis-no-vary-search) tells which parts of a query don't change the answer. What the last
// answer of a path said is remembered; requests for that path then have keys without those parts, and, as with a
// KeyPolicy, the origin isn't told of them either, so that they can't change what others get. Such keys say so themselves
// (Key.Extra), and all that is stored under them for a path points to one cell: a purge of any of the path's URLs takes it
// all, since the path's rule at the time of the purge need not be that of the time when it was stored.

const (
	searchSlots  = 1 << 12
	maxSearch    = 512 // bytes of a rule
	searchMarker = "\x01"
)

// search is a path's rule.
type search struct {
	place  string // service, scheme, host, port and path
	text   string // the rule in one form
	order  bool   // the order of parameters doesn't count
	all    bool   // no parameter counts but those named
	params []string
}

// searches remembers the rules of paths, in constant memory. A path that is forgotten has keys by the whole query again.
type searches struct {
	seed  maphash.Seed
	slots [searchSlots]atomic.Pointer[search]
}

func (k Key) place() string {
	return k.Service + "\n" + k.Scheme + "\n" + k.Host + "\n" + k.Port + "\n" + k.Path
}

func (s *searches) slot(place string) *atomic.Pointer[search] {
	return &s.slots[maphash.String(s.seed, place)%searchSlots]
}

// rule is the rule of a key's path, if one is known.
func (s *searches) rule(k Key) *search {
	place := k.place()
	if r := s.slot(place).Load(); r != nil && r.place == place {
		return r
	}
	return nil
}

// keyOf is the key under the rule of its path.
func (s *searches) keyOf(k Key, rule *search) Key {
	if rule == nil || k.Query == "" {
		return k
	}
	k.Query = rule.query(k.Query)
	k.Extra = searchMarker + rule.text + searchMarker + k.Extra
	return k
}

// learn takes a response's word on its path, and tells whether the response may be stored under the key it was fetched for:
// under one that leaves something out, only if it says the same.
func (s *searches) learn(k Key, h http.Header) bool {
	rule := parseSearch(h["No-Vary-Search"])
	place := k.place()
	slot := s.slot(place)
	old := slot.Load()
	switch {
	case rule != nil:
		rule.place = place
		if old == nil || old.place != place || old.text != rule.text {
			slot.Store(rule)
		}
	case old != nil && old.place == place:
		slot.CompareAndSwap(old, nil)
	}
	said, marked := searchOf(k)
	return !marked || rule != nil && rule.text == said
}

// searchOf is the rule that a key is made by.
func searchOf(k Key) (text string, marked bool) {
	rest, marked := strings.CutPrefix(k.Extra, searchMarker)
	text, _, _ = strings.Cut(rest, searchMarker)
	return text, marked
}

// searchCell is the cell of all that is stored under a path's rules, if the key is by one.
func (k Key) searchCell() (n cellName, ok bool) {
	_, marked := searchOf(k)
	return pathCell(k.url()), marked
}

func pathCell(u urlKey) cellName { return cellName{u.service, ofSearch, u.host + "\n" + u.path} }

// parseSearch reads No-Vary-Search; nil: it says nothing, or nothing that can be understood, which is the same.
func parseSearch(lines []string) *search {
	if len(lines) == 0 {
		return nil
	}
	dict, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return nil
	}
	r := &search{}
	if v, ok := dict.Get("key-order"); ok {
		item, isItem := v.(httpsfv.Item)
		on, isBool := item.Value.(bool)
		if !isItem || !isBool {
			return nil
		}
		r.order = on
	}
	switch v, _ := dict.Get("params"); v := v.(type) {
	case nil:
	case httpsfv.Item:
		on, isBool := v.Value.(bool)
		if !isBool {
			return nil
		}
		r.all = on
	case httpsfv.InnerList:
		if r.params = names(v); r.params == nil {
			return nil
		}
	}
	if v, ok := dict.Get("except"); ok {
		list, isList := v.(httpsfv.InnerList)
		if !isList || !r.all {
			return nil
		}
		if r.params = names(list); r.params == nil {
			return nil
		}
	}
	if !r.order && !r.all && len(r.params) == 0 {
		return nil
	}
	slices.Sort(r.params)
	r.text = strconv.FormatBool(r.order) + strconv.FormatBool(r.all) + strings.Join(r.params, "&")
	if len(r.text) > maxSearch {
		return nil
	}
	return r
}

// names are the strings of a list, decoded as the names of parameters are; nil: there is something else in it.
func names(list httpsfv.InnerList) []string {
	out := make([]string, 0, len(list.Items))
	for _, item := range list.Items {
		s, ok := item.Value.(string)
		name, err := url.QueryUnescape(s)
		if !ok || err != nil || strings.ContainsAny(name, "&\x01") {
			return nil
		}
		out = append(out, name)
	}
	return out
}

// query is what of a query counts. Names are compared decoded; what is kept stays as it was written.
func (r *search) query(query string) string {
	type pair struct{ name, text string }
	var kept []pair
	for text := range strings.SplitSeq(query, "&") {
		raw, _, _ := strings.Cut(text, "=")
		name, err := url.QueryUnescape(raw)
		if err != nil {
			name = raw
		}
		if text == "" || slices.Contains(r.params, name) != r.all {
			continue
		}
		kept = append(kept, pair{name, text})
	}
	if r.order {
		slices.SortStableFunc(kept, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	}
	texts := make([]string, len(kept))
	for i, p := range kept {
		texts[i] = p.text
	}
	return strings.Join(texts, "&")
}
