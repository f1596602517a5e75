package upstream

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// replace puts a text in a file's place the way that careful writers do.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// A pool follows its file without dropping a request; an absent, empty or faulty file keeps the last good origins and says so.
func TestPoolByFile(t *testing.T) {
	a, b := good(t, hello), good(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	path := filepath.Join(t.TempDir(), "origins.txt")
	replace(t, path, "# ours\n"+a+" 3 # the big one\n\n")
	heard := &events{}
	p := newTestPool(t, PoolOptions{File: path, fileEvery: 10 * time.Millisecond, OnEvent: heard.note})
	if got := strings.Join(p.Origins(), " "); got != a || p.Status().Origins[0].Weight != 3 {
		t.Fatalf("%s %+v", got, p.Status().Origins)
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if got, _, at, err := do(p, request(t, "POST", strings.NewReader("x")), policy()); got != "hello" {
					t.Error(got, at, err)
					return
				}
			}
		}
	})
	replace(t, path, b+"\n"+a+"\n")
	waitFor(t, func() bool { return strings.Join(p.Origins(), " ") == b+" "+a && p.Status().Origins[1].Weight == 1 })
	replace(t, path, b+"\n")
	waitFor(t, func() bool { return strings.Join(p.Origins(), " ") == b })
	for i, broken := range []string{"", "# nothing\n", "http://127.0.0.1\n", b + "\nnonsense\n"} {
		replace(t, path, broken)
		waitFor(t, func() bool { return strings.Count(heard.String(), "pool.unresolved") > i })
		if got := strings.Join(p.Origins(), " "); got != b {
			t.Errorf("with %q: %s", broken, got)
		}
		replace(t, path, b+"\n")
		waitFor(t, func() bool { return strings.Count(heard.String(), "pool.resolved") > i })
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return strings.Count(heard.String(), "pool.unresolved") > 4 })
	close(stop)
	running.Wait()
	if got := strings.Join(p.Origins(), " "); got != b {
		t.Errorf("without the file: %s", got)
	}
}

func TestParseMembers(t *testing.T) {
	for text, want := range map[string]string{
		"http://a:80\nhttps://[::1]:443 1000": "", "": "no origins", "http://a:80 0": "no weight", "http://a:80 1001": "no weight", "http://a:80 x": "no weight",
		"http://a:80 1 2": "too much", "http://a:80\nhttp://a:80": "line 2: \"http://a:80\" stands in the file twice", "http://a": "form", "http://a:80/": "form",
		"http://u@a:80": "form", "ftp://a:80": "form", "http+dns://a:80": "form", strings.Repeat("x", maxFile+1): "larger",
	} {
		got, err := parseMembers([]byte(text))
		if want == "" && (err != nil || len(got) != 2) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60q: %v %v", text, got, err)
		}
	}
	var many strings.Builder
	for i := range maxInFile + 1 {
		fmt.Fprintf(&many, "http://a:%d\n", i+1)
	}
	if _, err := parseMembers([]byte(many.String())); err == nil {
		t.Error("too many origins were accepted")
	}
}

func FuzzParseMembers(f *testing.F) {
	f.Add([]byte("http://a:80 3 # x\n\nhttps://[::1]:443"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseMembers(data)
		if err != nil {
			return
		}
		p := newTestPool(t, PoolOptions{Origins: []string{"http://127.0.0.1:1"}})
		p.SetMembers(list)
		if len(list) == 0 || len(p.Origins()) != len(list) {
			t.Errorf("%q: %d origins, of which the pool takes %d", data, len(list), len(p.Origins()))
		}
	})
}
