package main

import (
	"fmt"
	"go/ast"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// floors is the house's plan: a package may import only what is on a floor below its own. The design numbers the floors
// 0 to 5; lab, drill and the command, which share the fifth, are told apart here, since each may use the one before.
var floors = map[string]int{
	"landfall/configs": 0,

	"landfall/routing":       1,
	"landfall/cache/disk":    1,
	"landfall/cache/history": 1,
	"landfall/cache/replay":  1,

	"landfall/cache":            2,
	"landfall/gateway/canary":   2,
	"landfall/gateway/certs":    2,
	"landfall/gateway/compress": 2,
	"landfall/gateway/feeds":    2,
	"landfall/gateway/homes":    2,
	"landfall/gateway/upstream": 2,
	"landfall/healthcheck":      2,
	"landfall/routing/dns":      2,
	"landfall/routing/dns/push": 2,
	"landfall/routing/geo":      2,
	"landfall/routing/mesh":     2,
	"landfall/routing/rtt":      2,

	"landfall/gateway/jwtauth":   2,
	"landfall/gateway/ratelimit": 2,

	"landfall/gateway/admin":           3,
	"landfall/gateway/proxy":           3,
	"landfall/gateway/server":          3,
	"landfall/gateway/server/xconnect": 0,

	"landfall/gateway": 4,

	"landfall/deploy/storm":      5,
	"landfall/deploy/lab":        5,
	"landfall/routing/dns/bench": 5,
	"landfall/deploy/simulate":   5,
	"landfall/deploy/drill":      6,
	"landfall/cmd/landfall":      7,
}

// outside is what the packages that look at nodes from outside may import of the house: they know a node by its command
// line, its config file, its admin API and what it serves, never by its parts.
var outside = map[string][]string{
	"landfall/deploy/storm": {},
	"landfall/deploy/lab":   {"landfall/cache/replay", "landfall/gateway/admin", "landfall/gateway/certs", "landfall/gateway/upstream"},
	"landfall/deploy/drill": {"landfall/cache/history", "landfall/cache/replay", "landfall/deploy/lab", "landfall/gateway/admin"},
}

// banned imports, with what to do instead. Tests may use them.
var banned = map[string]string{
	"io/ioutil": "use io and os",
	"unsafe":    "no benchmark has paid for it yet",
	"expvar":    "metrics are Prometheus metrics, see gateway/METRICS.md",
}

// paid are the files that may import what is banned, each with the benchmark that has paid for it.
var paid = map[string]string{
	"routing/dns/packets_linux.go unsafe": "BenchmarkServeUDP: no object for an answer rather than two",
}

func TestFloors(t *testing.T) {
	fset, all := sources(t)
	for _, s := range all {
		floor, known := floors[s.pkg()]
		if !known {
			t.Errorf("%s: package %s is on no floor: add it to the design and to floors in house_imports_test.go", s.path, s.pkg())
			continue
		}
		for _, i := range s.file.Imports {
			p, at := strings.Trim(i.Path.Value, `"`), fset.Position(i.Pos())
			if why := banned[p]; why != "" && !s.test && paid[s.path+" "+p] == "" {
				t.Errorf("%s: import of %s: %s", at, p, why)
			}
			if p != modulePath && !strings.HasPrefix(p, modulePath+"/") || p == s.pkg() {
				continue
			}
			if below, ok := floors[p]; !ok || below > floor || below == floor && !s.test {
				t.Errorf("%s: %s (floor %d) imports %s (floor %d): declare a small interface here and let a package above connect them", at, s.pkg(), floor, p, below)
			}
			if allowed, ok := outside[s.pkg()]; ok && !s.test && !slices.Contains(allowed, p) {
				t.Errorf("%s: %s looks at nodes from outside and may import only %v of the house", at, s.pkg(), allowed)
			}
		}
	}
}

func TestNamesSayWhatPackagesDo(t *testing.T) {
	for p := range floors {
		last := p[strings.LastIndex(p, "/")+1:]
		if slices.Contains([]string{"util", "utils", "common", "helpers", "misc", "types", "base"}, last) {
			t.Errorf("%s: a package of that name collects what has no home: name it after its one job, or move its parts to their users", p)
		}
	}
}

// TestRoutingIsPure holds that the decision can be replayed: no network, no files, no clock, no randomness, no goroutine.
func TestRoutingIsPure(t *testing.T) {
	const routing = "landfall/routing"
	fset, all := sources(t)
	for _, s := range all {
		if s.pkg() != routing || s.test {
			continue
		}
		for _, i := range s.file.Imports {
			p := strings.Trim(i.Path.Value, `"`)
			if slices.Contains([]string{"context", "io", "io/fs", "math/rand", "math/rand/v2", "crypto/rand", "net", "os", "sync", "sync/atomic", "syscall", "log/slog"}, p) {
				t.Errorf("%s: routing imports %s: pass the value in, and do the rest above", fset.Position(i.Pos()), p)
			}
		}
		timeName, hasTime := importName(s.file, "time")
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine in routing: it only computes", fset.Position(n.Pos()))
			case *ast.ChanType:
				t.Errorf("%s: a channel in routing: it only computes", fset.Position(n.Pos()))
			case *ast.SelectorExpr:
				for _, name := range []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"} {
					if hasTime && isSelector(n, timeName, name) {
						t.Errorf("%s: time.%s in routing: pass the moment in", fset.Position(n.Pos()), name)
					}
				}
			}
			return true
		})
	}
	deps, err := dependencies(routing)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deps {
		if d == "net/http" || strings.HasPrefix(d, "net/http/") || d == "net" || d == "os/exec" {
			t.Errorf("%s depends on %s; `go list -deps ./routing` and `go mod why` show by which import: leave that one out", routing, d)
		}
	}
}

// dependencies are all packages that an import of p brings in.
func dependencies(p string) ([]string, error) {
	cmd := exec.Command("go", "list", "-deps", p)
	cmd.Dir = repoRoot
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -deps %s: %w", p, err)
	}
	return strings.Fields(string(out)), nil
}
