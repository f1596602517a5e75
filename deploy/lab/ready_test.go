package lab

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"landfall/gateway/admin"
)

func TestWhatANodeLacks(t *testing.T) {
	up := admin.RegionSummary{Name: "eu-west", State: "up", NodesLive: 2}
	var status admin.Status
	var drains []admin.Drain
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/status":
			_ = json.NewEncoder(w).Encode(status)
		case "/v1/drains":
			_ = json.NewEncoder(w).Encode(map[string]any{"drains": drains})
		}
	}))
	defer s.Close()
	api := admin.NewClient(s.URL, "", s.Client())
	l := &Lab{o: Options{Nodes: 2}}
	for _, c := range []struct {
		name   string
		status admin.Status
		drains []admin.Drain
		lacks  string
	}{
		{"nothing", admin.Status{State: "serving", Ready: true, Regions: []admin.RegionSummary{up}}, nil, ""},
		{"it joins", admin.Status{State: "joining", NotReady: []string{"its registers"}}, nil, "it waits: [its registers]"},
		{"a region is unknown", admin.Status{State: "serving", Regions: []admin.RegionSummary{up, {Name: "us-east", State: "unknown", NodesLive: 2}}}, nil, "us-east unknown with 2 of 2 nodes"},
		{"a node is missing", admin.Status{State: "serving", Regions: []admin.RegionSummary{{Name: "us-east", State: "up", NodesLive: 1}}}, nil, "us-east up with 1 of 2 nodes"},
		{"a drain of last time", admin.Status{State: "serving", Regions: []admin.RegionSummary{{Name: "us-east", State: "draining"}}}, []admin.Drain{{}}, ""},
		{"it joins, drained", admin.Status{State: "joining"}, []admin.Drain{{}}, "it waits"},
	} {
		status, drains = c.status, c.drains
		err := l.missing(t.Context(), api)
		if (err != nil) != (c.lacks != "") || err != nil && !strings.Contains(err.Error(), c.lacks) {
			t.Errorf("%s: it lacks %v", c.name, err)
		}
	}
	s.Close()
	if l.missing(t.Context(), api) == nil {
		t.Error("a node that does not answer lacks nothing")
	}
}
