package lab

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
)

// versions are pages that a drill changes: PUT /versions/ID?v=N sets one, GET gives it, cacheable for long. The zero value
// has none. A page that was not set since the origin started is a 503: what the origin had before, it doesn't know.
type versions struct {
	mu  sync.Mutex
	now map[string]int
}

// maxVersions bounds the pages of one origin.
const maxVersions = 10_000

func (v *versions) put(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("v"))
	if err != nil {
		http.Error(w, "v is not a number", http.StatusBadRequest)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.now == nil {
		v.now = map[string]int{}
	}
	if id := r.PathValue("id"); len(v.now) < maxVersions || v.now[id] > 0 {
		v.now[id] = max(v.now[id], n)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (v *versions) get(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	v.mu.Lock()
	n, known := v.now[id]
	v.mu.Unlock()
	if !known {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "not set", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Cache-Control", "max-age=3600")
	w.Header().Set("Surrogate-Key", "version-"+id+" versions")
	w.Header().Set("Etag", fmt.Sprintf(`"%d"`, n))
	if r.Header.Get("If-None-Match") == w.Header().Get("Etag") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	fmt.Fprint(w, n)
}
