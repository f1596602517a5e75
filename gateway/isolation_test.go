package gateway

import (
	"net/http"
	"strings"
	"testing"
)

// TestCutOffNodeConfirms: a node that has lost the others for longer than isolation confirms with the origin what it
// serves, so that a change it was never told of is not hidden; back in the mesh it trusts its cache again.
func TestCutOffNodeConfirms(t *testing.T) {
	c := newCounting()
	c.set(nil, "Cache-Control: max-age=600")
	fleet := sharedFleet(t, 34, 3, 1, origin(t, c.ServeHTTP), "cache: {isolation: 500ms}")
	client := browser(t, fleet[0].listen["http"], nil)
	read := func() (body, status string) {
		var resp *http.Response
		resp, body = get(t, client, "GET", "http://shop.test/page")
		return body, strings.Join(resp.Header["Cache-Status"], ", ")
	}
	read()
	if body, status := read(); body != "0" || !strings.Contains(status, "hit") {
		t.Fatalf("%q %q", body, status)
	}
	fleet[1].kill()
	fleet[2].kill()
	c.version.Store(1) // and a purge that this node does not hear of
	eventually(t, "it knows that it is cut off", func() bool { return fleet[0].hasEvent("cache.isolated") })
	if body, status := read(); body != "1" || !strings.Contains(status, "fwd=stale") {
		t.Errorf("cut off, it serves %q %q", body, status)
	}
	for range 3 {
		if _, status := read(); strings.Contains(status, "hit") {
			t.Errorf("cut off, it serves from its cache: %q", status)
		}
	}
	for _, p := range fleet[1:] {
		launch(t, p.n.o).awaitReady()
	}
	eventually(t, "it is back", func() bool { return fleet[0].hasEvent("cache.rejoined") })
	read()
	asked := c.of("/page")
	if body, status := read(); body != "1" || !strings.Contains(status, "hit") || c.of("/page") != asked {
		t.Errorf("back in the mesh, it serves %q %q", body, status)
	}
}
