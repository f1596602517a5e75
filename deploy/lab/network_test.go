package lab

import (
	"net/http/httptest"
	"os"
	"slices"
	"testing"
	"time"
)

// Each node's file says what the ways from its region suffer, and nothing of its own region.
func TestTrouble(t *testing.T) {
	l := labOnPaper(t)
	l.fleet.Dir = t.TempDir()
	s := httptest.NewServer(l.controlHandler())
	defer s.Close()
	c := Control{Addr: s.Listener.Addr().String(), Client: s.Client()}
	for _, step := range []struct {
		region string
		t      Trouble
		want   [3]string // by region
	}{
		{"eu-west", Trouble{Cut: true}, [3]string{"us-east cut\nap-southeast cut\n", "eu-west cut\n", "eu-west cut\n"}},
		{"us-east", Trouble{Loss: 5}, [3]string{"us-east cut\nus-east loss 5%\nap-southeast cut\n", "eu-west cut\neu-west loss 5%\nap-southeast loss 5%\n", "eu-west cut\nus-east loss 5%\n"}},
		{"eu-west", Trouble{}, [3]string{"us-east loss 5%\n", "eu-west loss 5%\nap-southeast loss 5%\n", "us-east loss 5%\n"}},
		{"us-east", Trouble{}, [3]string{}},
	} {
		if err := c.SetTrouble(t.Context(), step.region, step.t); err != nil {
			t.Fatal(err)
		}
		for i, r := range l.fleet.Regions {
			for _, n := range r.Nodes {
				if got, err := os.ReadFile(l.networkFile(n)); err != nil || string(got) != step.want[i] {
					t.Errorf("%+v: %s reads %q, want %q (%v)", step.t, n.Name, got, step.want[i], err)
				}
			}
		}
	}
	if err := c.SetTrouble(t.Context(), "mars", Trouble{}); err == nil {
		t.Error("a region that is not there was cut off")
	}
	if err := c.SetTrouble(t.Context(), "eu-west", Trouble{Loss: 101}); err == nil {
		t.Error("more than all was lost")
	}
	if err := c.SetTrouble(t.Context(), "eu-west", Trouble{Clock: 2 * time.Hour}); err == nil {
		t.Error("a clock was off by hours")
	}
	if err := c.SetTrouble(t.Context(), "eu-west", Trouble{Clock: -30 * time.Second}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"-30s", "0s"} {
		r := l.fleet.Regions[i]
		if args := l.nodeArgs(r, r.Nodes[0]); !slices.Equal(args[len(args)-2:], []string{"--clock", want}) {
			t.Errorf("%s starts with %q", r.Name, args)
		}
	}
	if err := l.forgetTroubles(); err != nil {
		t.Fatal(err)
	}
	for _, r := range l.fleet.Regions {
		for _, n := range r.Nodes {
			if _, err := os.ReadFile(l.networkFile(n)); err == nil {
				t.Errorf("%s would start with the last lab's troubles", n.Name)
			}
		}
	}
}
