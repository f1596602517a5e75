package lab

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Trouble is what the way between a region and the others suffers: gossip and the peer channel, not clients nor origins. And
// what its clocks do.
type Trouble struct {
	Cut   bool
	Loss  int           // percent
	Clock time.Duration // how far ahead the clocks of its nodes are, from their next start on
}

// SetTrouble breaks or mends the network between a region and the others. The nodes see it within a fraction of a second.
func (l *Lab) SetTrouble(name string, t Trouble) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.region(name); err != nil {
		return err
	}
	if t.Clock.Abs() > time.Hour {
		return fmt.Errorf("clocks are off by at most an hour, not %s", t.Clock)
	}
	if t.Loss < 0 || t.Loss > 100 {
		return fmt.Errorf("loss is 0 to 100 percent, not %d", t.Loss)
	}
	if l.troubles == nil {
		l.troubles = map[string]Trouble{}
	}
	l.troubles[name] = t
	for _, from := range l.fleet.Regions {
		text := l.networkOf(from.Name)
		for _, n := range from.Nodes {
			path := l.networkFile(n)
			if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
				return fmt.Errorf("tell %s of its network: %w", n.Name, err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				return fmt.Errorf("tell %s of its network: %w", n.Name, err)
			}
		}
	}
	return nil
}

// forgetTroubles removes what an earlier lab in the same folder may have left behind, when it ended amid a drill.
func (l *Lab) forgetTroubles() error {
	for _, r := range l.fleet.Regions {
		for _, n := range r.Nodes {
			if err := os.Remove(l.networkFile(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("mend the network of %s: %w", n.Name, err)
			}
		}
	}
	return nil
}

// networkOf is what the nodes of a region read. Callers hold mu.
func (l *Lab) networkOf(from string) string {
	var b strings.Builder
	for _, to := range l.fleet.Regions {
		if to.Name == from {
			continue
		}
		if l.troubles[from].Cut || l.troubles[to.Name].Cut {
			fmt.Fprintf(&b, "%s cut\n", to.Name)
		}
		if loss := max(l.troubles[from].Loss, l.troubles[to.Name].Loss); loss > 0 {
			fmt.Fprintf(&b, "%s loss %d%%\n", to.Name, loss)
		}
	}
	return b.String()
}

func (l *Lab) networkFile(n Node) string { return filepath.Join(l.fleet.Dir, n.Name+".network") }

// serveTrouble answers POST /lab/regions/{region}/network?cut=BOOL&loss=PERCENT&clock=DURATION.
func (l *Lab) serveTrouble(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var t Trouble
	var err1, err2, err3 error
	if s := q.Get("cut"); s != "" {
		t.Cut, err1 = strconv.ParseBool(s)
	}
	if s := q.Get("loss"); s != "" {
		t.Loss, err2 = strconv.Atoi(s)
	}
	if s := q.Get("clock"); s != "" {
		t.Clock, err3 = time.ParseDuration(s)
	}
	if err1 != nil || err2 != nil || err3 != nil {
		http.Error(w, "expected cut=true or cut=false, loss= a percentage, and clock= a duration such as -30s", http.StatusBadRequest)
		return
	}
	if err := l.SetTrouble(r.PathValue("region"), t); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}
