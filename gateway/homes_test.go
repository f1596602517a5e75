package gateway

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"landfall/gateway/admin"
	"landfall/gateway/homes"
)

// A fleet moves its users from one ring to another under traffic: no request fails, each user is served in its home of the
// moment wherever it comes in, every node agrees, and pins hold. Events and the admin API tell of it.
func TestUsersMoveWithoutDowntime(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 97)
	write(t, f.file, f.config("    affinity: {by: header:X-User, regions: {eu: 1, us: 1}, next: {ap: 1}, handover: 50ms}\n"))
	for _, r := range f.regions {
		if err := f.nodes[r].n.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	api := f.nodes["eu"].admin
	ring := homes.NewRing(map[string]int{"eu": 1, "us": 1})
	users := strings.Fields("anna ben cleo dan eve finn gus hedy ivo jo")
	ask := func(region, user, method string) string {
		r, err := http.NewRequest(method, "https://shop.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-User", user)
		resp, err := f.browsers(region).Do(r)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			return resp.Status + " " + string(body)
		}
		return strings.TrimPrefix(string(body), "by ")
	}
	all := func(want func(user string) string) bool {
		for _, region := range f.regions {
			for _, user := range users {
				if got := ask(region, user, "POST"); got != want(user) {
					return false
				}
			}
		}
		return true
	}
	before := func(user string) string { return ring.Home(homes.KeyOf(user)) }
	eventually(t, "every user is served at home", func() bool { return all(before) })

	if _, err := api.PinUser(t.Context(), "web", "anna", &admin.PinSpec{Region: "us", Reason: "test"}, 0); err != nil {
		t.Fatal(err)
	}
	after := func(user string) string {
		if user == "anna" {
			return "us"
		}
		return "ap"
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for _, region := range f.regions {
		running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				user := users[i%len(users)]
				if got := ask(region, user, []string{"GET", "POST"}[i/len(users)%2]); got != before(user) && got != after(user) {
					t.Errorf("%s at %s: %s, want %s or %s", user, region, got, before(user), after(user))
				}
			}
		})
	}
	if _, err := api.MoveUsers(t.Context(), "web", &admin.MoveSpec{Share: 1, Over: admin.Duration(time.Second), Reason: "test"}, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every user has moved", func() bool { return all(after) })
	close(stop)
	running.Wait()
	f.checkHomes(after)
	if _, err := api.MoveUsers(t.Context(), "web", nil, 0); err == nil {
		t.Error("a migration was ended with everybody in the new homes")
	}
	if _, err := api.MoveUsers(t.Context(), "web", &admin.MoveSpec{Share: 0}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := api.PinUser(t.Context(), "web", "anna", nil, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every user is back", func() bool { return all(before) })
	if _, err := api.MoveUsers(t.Context(), "web", nil, 0); err != nil {
		t.Error(err)
	}
}

// checkHomes holds what each node's admin API and events say against where users are.
func (f *testFleet) checkHomes(home func(string) string) {
	f.t.Helper()
	for _, region := range f.regions {
		api := f.nodes[region].admin
		h, err := api.HomeOf(f.t.Context(), "web", "ben")
		if err != nil || h.Region != home("ben") || h.Why != "moved" || h.Old == "" {
			f.t.Errorf("%s: %+v %v", region, h, err)
		}
		list, err := api.Homes(f.t.Context())
		if err != nil || len(list) != 1 || list[0].Share != 1 || list[0].Pins != 1 || len(list[0].Movers) != 2 || list[0].Moving.Reason != "test" {
			f.t.Errorf("%s: %+v %v", region, list, err)
		}
		pins, err := api.Pins(f.t.Context())
		if err != nil || len(pins) != 1 || pins[0].User != "anna" || pins[0].Region != "us" {
			f.t.Errorf("%s: %+v %v", region, pins, err)
		}
		eventually(f.t, "an event of the move's end", func() bool {
			return slices.ContainsFunc(f.nodes[region].events(), func(e string) bool { return strings.HasPrefix(e, "migration web: 100%") })
		})
	}
}

// browsers is a client of one region's node that keeps its connections.
func (f *testFleet) browsers(region string) *http.Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.clients == nil {
		f.clients = map[string]*http.Client{}
	}
	if f.clients[region] == nil {
		f.clients[region] = browser(f.t, f.at(region, 1), f.site.trust)
	}
	return f.clients[region]
}
