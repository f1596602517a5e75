package routing

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Rewrite the goldens only when you understand why they changed: they are what `landfall explain` tells operators.
var update = flag.Bool("update", false, "rewrite testdata/*.txt with what the code answers now")

// TestScenarios runs testdata/*.txt: commands, and below each `decide` its answer, indented by a tab.
//
//	region NAME [LAT,LON] [pool=up|unknown|down|none] [weight=N] [drained] [dead] [nodes=N]
//	panic SHARE · alldown REGION · policy weighted
//	decide LAT,LON|nowhere CLIENT-IP
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			in, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScenario(t, string(in))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(in) {
				t.Errorf("%s: got\n%s\nwant\n%s", file, got, in)
			}
		})
	}
}

func runScenario(t *testing.T, in string) string {
	var out strings.Builder
	s := Snapshot{Panic: 0.5, AllDown: -1, Services: []Service{{Name: "web"}}}
	for line := range strings.Lines(in) {
		if strings.HasPrefix(line, "\t") {
			continue
		}
		out.WriteString(line)
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		switch f[0] {
		case "region":
			setRegion(t, &s, f[1:])
		case "panic":
			s.Panic, _ = strconv.ParseFloat(f[1], 64)
		case "alldown":
			s.AllDown = NewSnapshot(s).Region(f[1])
		case "policy":
			s.Services[0].Policy = map[string]Policy{"weighted": Weighted, "nearest": Nearest}[f[1]]
		case "decide":
			out.WriteString(describe(NewSnapshot(s), f[1], netip.MustParseAddr(f[2])))
		default:
			t.Fatalf("unknown command %q", f[0])
		}
	}
	return out.String()
}

// setRegion adds or replaces a region; a later line replaces the whole of an earlier one.
func setRegion(t *testing.T, s *Snapshot, f []string) {
	r, p := Region{Name: f[0]}, Place{HasPool: true, Weight: 1}
	nodes := 1
	for _, w := range f[1:] {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "pool":
			p.HasPool = v != "none"
			p.Pool = map[string]State{"up": Up, "unknown": Unknown, "down": Down, "none": Down}[v]
		case "weight":
			n, _ := strconv.Atoi(v)
			p.Weight = uint16(n)
		case "drained":
			r.Drained = true
		case "dead":
			r.Dead = true
		case "nodes":
			nodes, _ = strconv.Atoi(v)
		default:
			r.Location = parsePoint(t, w)
		}
	}
	i := NewSnapshot(*s).Region(r.Name)
	if i < 0 {
		i = len(s.Regions)
		s.Regions = append(s.Regions, Region{})
		s.Services[0].Places = append(s.Services[0].Places, Place{})
	}
	for n := range nodes {
		r.Nodes = append(r.Nodes, Node{Name: fmt.Sprintf("%s-%d", r.Name, n+1), Addrs: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 0, byte(i + 1), byte(n + 1)})}})
	}
	s.Regions[i], s.Services[0].Places[i] = r, p
}

func parsePoint(t *testing.T, w string) Point {
	if w == "nowhere" {
		return Point{}
	}
	lat, lon, ok := strings.Cut(w, ",")
	a, err1 := strconv.ParseFloat(lat, 64)
	b, err2 := strconv.ParseFloat(lon, 64)
	if !ok || err1 != nil || err2 != nil {
		t.Fatalf("not a place: %q", w)
	}
	return Point{a, b, true}
}

func describe(s *Snapshot, place string, addr netip.Addr) string {
	var pt Point
	if lat, lon, ok := strings.Cut(place, ","); ok {
		pt.Lat, _ = strconv.ParseFloat(lat, 64)
		pt.Lon, _ = strconv.ParseFloat(lon, 64)
		pt.Located = true
	}
	key := ClientKey(addr)
	client := Client{Point: pt, Key: key}
	d := s.Decide(nil, 0, client)
	var b strings.Builder
	fmt.Fprintf(&b, "\tmode %s\n", d.Mode)
	for i, c := range d.Choices {
		use := "use "
		if i >= d.Usable {
			use = "pass"
		}
		km, ok := s.DistanceKM(c.Region, &client)
		dist := "-"
		if ok {
			dist = fmt.Sprintf("%.0f km", km)
		}
		fmt.Fprintf(&b, "\t%s %s %s %s, %s\n", use, s.Regions[c.Region].Name, c.State, dist, c.Reason)
	}
	fmt.Fprintf(&b, "\tanswer %v\n", s.Addresses(nil, d, key, false, 2))
	return b.String()
}
