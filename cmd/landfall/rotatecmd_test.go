package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"landfall/gateway/admin"
)

// rotatingNode is a fleet of two nodes, the second of which takes each step one look later, and the step use never.
type rotatingNode struct {
	mu    sync.Mutex
	s     admin.KeyStatus
	steps []string
	stuck string // the step that us-1 never takes
}

func (n *rotatingNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch r.Method {
	case http.MethodPost:
		var change admin.KeyChange
		_ = json.NewDecoder(r.Body).Decode(&change)
		step := change.Step
		if change.Force {
			step += "!"
		}
		n.steps = append(n.steps, step)
		n.s = admin.KeyStatus{Step: change.Step, Key: "0a1b2c3d", Waiting: []admin.KeyWait{{Node: "us-1", Why: "it does not hold the key yet"}},
			Nodes: []admin.NodeKeys{{Node: "eu-1", Region: "eu", Keys: []string{"0a1b2c3d"}, Kept: true}, {Node: "us-1", Region: "us"}}}
	case http.MethodGet:
		if n.s.Step != n.stuck && len(n.s.Waiting) > 0 {
			n.s.Waiting = nil
			n.s.Next = map[string]string{"add": "use", "use": "remove"}[n.s.Step]
			n.s.Finished = n.s.Step == "remove"
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(n.s)
}

func TestRotateKey(t *testing.T) {
	for _, c := range []struct {
		name, args, stuck string
		begin             admin.KeyStatus
		code              int
		steps, says       string
	}{
		{name: "from the start", begin: admin.KeyStatus{Step: "none"}, steps: "add use remove", says: "key 0a1b2c3d: rotated"},
		{name: "after another rotation", begin: admin.KeyStatus{Step: "remove", Finished: true}, steps: "add use remove", says: "fleet key --data"},
		{name: "going on where it was", begin: admin.KeyStatus{Step: "add", Next: "use"}, steps: "use remove", says: "rotated"},
		{name: "one step", args: "--step abort", begin: admin.KeyStatus{Step: "add"}, steps: "abort", says: "waiting for 1 of 2 nodes"},
		{name: "a node lags for ever", args: "--timeout 1s", stuck: "use", begin: admin.KeyStatus{Step: "none"}, code: 1, steps: "add use",
			says: "us-1: it does not hold the key yet. Run it again to go on"},
	} {
		n := &rotatingNode{s: c.begin, stuck: c.stuck}
		s := httptest.NewServer(n)
		code, out, errs := command(t, append([]string{"fleet", "rotate-key", "--admin", s.URL}, strings.Fields(c.args)...)...)
		s.Close()
		if code != c.code || strings.Join(n.steps, " ") != c.steps || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: exit %d, steps %v\n%s%s", c.name, code, n.steps, out, errs)
		}
	}
	s := httptest.NewServer(&rotatingNode{s: admin.KeyStatus{Step: "add", Key: "0a1b2c3d", Waiting: []admin.KeyWait{{Node: "us-1", Why: "it sleeps"}},
		Nodes: []admin.NodeKeys{{Node: "us-1", Region: "us"}}}, stuck: "add"})
	defer s.Close()
	if code, out, _ := command(t, "fleet", "keys", "--admin", s.URL); code != 0 || !strings.Contains(out, "us-1  us      -     no    it sleeps") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestFleetKey(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := command(t, "fleet", "key", "--data", dir); code != 1 || !strings.Contains(errs, "no rotated key") {
		t.Errorf("exit %d, %s", code, errs)
	}
	if code, _, _ := command(t, "fleet", "key"); code != 2 {
		t.Errorf("without --data: exit %d", code)
	}
	key := strings.Repeat("AQEB", 10) + "AQE="
	if err := os.WriteFile(filepath.Join(dir, "keys.json"), []byte(`{"keys":["`+key+`"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, "fleet", "key", "--data", dir); code != 0 || out != "LANDFALL_MESH_KEY="+key+"\n" {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}
