package cache

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// What an object is charged with is what the allocator takes for it.
func TestHeapBytes(t *testing.T) {
	for n := int64(0); n < 100_000; n += 1 + n/100 {
		if got, want := heapBytes(n), int64(cap(append([]byte(nil), make([]byte, n)...))); got != want {
			t.Fatalf("%d bytes take %d, not %d", n, want, got)
		}
	}
	if size := heapBytes(int64(unsafe.Sizeof(object{}))); size+16 != objectOverhead {
		t.Errorf("an object takes %d bytes; adjust objectOverhead", size)
	}
}

func TestNameNumbers(t *testing.T) {
	for id := uint64(1); commonName(id) != ""; id++ {
		if name := commonName(id); nameID(name) != id || http.CanonicalHeaderKey(name) != name {
			t.Errorf("%d is %q, whose number is %d", id, name, nameID(name))
		}
	}
	if nameID("X-Other") != 0 || commonName(0) != "" || commonName(1<<40) != "" {
		t.Error("a number without a name")
	}
}

// A head gives back what was packed.
func TestPack(t *testing.T) {
	k := Key{Service: "s", Scheme: "https", Host: "a.test", Port: "8443", Path: "/ä", Query: "q=1", Extra: "3:abc"}
	m := &meta{
		status: 200, varyNames: []string{"Accept-Encoding", "X-A", "X-B"}, upstream: []string{"a; hit", "b"},
		targeted: []string{"max-age=1"}, date: time.Unix(1e9, 0), lastModified: time.Unix(0, 0),
		lifetimes: lifetimes{swr: time.Minute, sie: 1500 * time.Millisecond},
		fields:    []field{{"Content-Type", []string{"text/html"}}, {"X-Two", []string{"a", ""}}, {"Etag", []string{`W/"x"`}}},
	}
	request := http.Header{"X-A": {""}, "Accept-Encoding": {"br"}}
	head, at := pack(k, m, request)
	o := &object{head: string(head), fieldsAt: uint32(at), cells: []*cell{{cellName: cellName{"s", ofService, ""}}, {cellName: cellName{"s", ofHost, "a.test"}}}}
	o.set(hasUpstream)
	if o.key() != k || !slices.Equal(o.varyNames(), m.varyNames) || o.path() != "/ä" || o.etag() != `W/"x"` {
		t.Errorf("%+v %q %q", o.key(), o.varyNames(), o.etag())
	}
	if same, selected, _ := o.matches(&k, request); !same || !selected {
		t.Error("it doesn't match its own request")
	}
	if _, selected, _ := o.matches(&k, http.Header{"Accept-Encoding": {"br"}}); selected {
		t.Error("absent is empty")
	}
	d := o.details()
	if want := (details{m.upstream, m.targeted, m.date, m.lastModified, m.swr, m.sie}); !reflect.DeepEqual(d, want) {
		t.Errorf("%+v, not %+v", d, want)
	}
	want := http.Header{
		"Content-Type": {"text/html"}, "X-Two": {"a", ""}, "Etag": {`W/"x"`}, "Cache-Status": m.upstream, "Landfall-Cache-Control": m.targeted,
	}
	if h := o.header(); !reflect.DeepEqual(h, want) {
		t.Errorf("%v", h)
	}
}

// FuzzHead: no bytes make reading a head panic, or give out more than is there.
func FuzzHead(f *testing.F) {
	head, at := pack(KeyOf(Request{Path: "/"}), &meta{varyNames: []string{"X-A"}, fields: []field{{"Etag", []string{`"a"`}}}}, http.Header{"X-A": {"1"}})
	f.Add(string(head), at)
	f.Add("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 3)
	f.Fuzz(func(t *testing.T, head string, at int) {
		if at < 0 || at > len(head) {
			return
		}
		o := &object{head: head, fieldsAt: uint32(at), cells: []*cell{{}, {}}}
		o.set(hasUpstream)
		k := o.key()
		size := 0
		for name, values := range o.header() {
			size += len(name) + len(strings.Join(values, ""))
		}
		if len(k.Path)+len(k.Query)+len(k.Extra) > len(head) || size > 64*len(head) {
			t.Fatalf("%+v and %d bytes of header from %d", k, size, len(head))
		}
		o.matches(&k, http.Header{})
		o.varyNames()
		o.windows()
		o.validators()
	})
}
