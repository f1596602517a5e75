package gateway

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

var updateMetrics = flag.Bool("update-metrics", false, "rewrite METRICS.md from the metrics that a node registers")

// documented is a metric as METRICS.md shows it.
type documented struct {
	name, kind, help string
	labels           []string
}

// recorder is a registerer that keeps what is registered with it.
type recorder struct {
	*prometheus.Registry
	metrics []documented
}

func (r *recorder) Register(c prometheus.Collector) error {
	if err := r.Registry.Register(c); err != nil {
		return err
	}
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for d := range descs {
		m := documentedBy(d)
		m.kind = kindOf(c, m.name)
		r.metrics = append(r.metrics, m)
	}
	return nil
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// documentedBy reads a description by the only way that the library offers: its text.
func documentedBy(d *prometheus.Desc) documented {
	parts := regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), unit: "[^"]*", constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`).FindStringSubmatch(d.String())
	if parts == nil {
		panic("the text of a metric's description has changed: " + d.String())
	}
	var m documented
	if _, err := fmt.Sscanf(parts[1]+" "+parts[2], "%q %q", &m.name, &m.help); err != nil {
		panic(err)
	}
	if parts[3] != "" {
		m.labels = strings.Split(parts[3], ",")
	}
	return m
}

func kindOf(c prometheus.Collector, name string) string {
	switch c := c.(type) {
	case *prometheus.CounterVec:
		return "counter"
	case *prometheus.GaugeVec:
		return "gauge"
	case *prometheus.HistogramVec:
		return "histogram"
	case prometheus.Metric:
		var m dto.Metric
		switch err := c.Write(&m); {
		case err != nil:
			panic(err)
		case m.Counter != nil:
			return "counter"
		case m.Gauge != nil:
			return "gauge"
		case m.Histogram != nil:
			return "histogram"
		}
	}
	if strings.HasSuffix(name, "_total") { // a collector of several metrics: their names tell
		return "counter"
	}
	return "gauge"
}

// ownMetrics are all metrics of a node but those of the Go runtime and the process.
func ownMetrics() []documented {
	r := &recorder{Registry: prometheus.NewRegistry()}
	newMetrics(r)
	own := slices.DeleteFunc(r.metrics, func(m documented) bool {
		return strings.HasPrefix(m.name, "go_") || strings.HasPrefix(m.name, "process_")
	})
	slices.SortFunc(own, func(a, b documented) int { return strings.Compare(a.name, b.name) })
	return own
}

var (
	metricName = regexp.MustCompile(`^landfall(_[a-z0-9]+)+$`)
	baseUnit   = regexp.MustCompile(`_(seconds|bytes|ratio)$`)
	otherUnit  = regexp.MustCompile(`_(ms|millis|milliseconds|micros|microseconds|nanoseconds|minutes|hours|days|kb|kib|mb|mib|kilobytes|megabytes|percent|pct)(_|$)`)
)

// unbounded are labels whose values clients choose, so that one client could fill a node's memory with them.
var unbounded = []string{"client", "host", "id", "ip", "path", "query", "remote", "request_id", "url", "user", "user_agent"}

func TestMetricNames(t *testing.T) {
	metrics := ownMetrics()
	if len(metrics) < 40 {
		t.Fatalf("only %d metrics are registered: newMetrics misses some", len(metrics))
	}
	for _, m := range metrics {
		if !metricName.MatchString(m.name) {
			t.Errorf("%s: metric names are landfall_, the subject, the unit, in lower case", m.name)
		}
		if total := strings.HasSuffix(m.name, "_total"); total != (m.kind == "counter") {
			t.Errorf("%s is a %s: counters end in _total, nothing else does", m.name, m.kind)
		}
		if m.kind == "histogram" && !baseUnit.MatchString(m.name) {
			t.Errorf("%s: a histogram's name ends in its unit: _seconds, _bytes or _ratio", m.name)
		}
		if u := otherUnit.FindString(m.name); u != "" {
			t.Errorf("%s: %s is no base unit: use seconds, bytes or a ratio", m.name, u)
		}
		if !strings.HasSuffix(m.help, ".") {
			t.Errorf("%s: its help %q is no sentence", m.name, m.help)
		}
		for _, l := range m.labels {
			if slices.Contains(unbounded, l) {
				t.Errorf("%s: the values of label %s are not bounded: leave it out, or sort them into classes", m.name, l)
			}
		}
	}
}

func TestMetricsAreDocumented(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`# Metrics

What a node serves under ` + "`/metrics`" + ` of its admin API, beside Go's own ` + "`go_*` and `process_*`" + `. This page is made from the metrics
themselves: ` + "`go test ./gateway -run TestMetricsAreDocumented -update-metrics`" + `.

Units are seconds, bytes and ratios. The values of labels come from the config or from closed lists in the code, never from a
client, so the number of series is bounded. All of them survive a reload.

| metric | kind | labels | meaning |
|---|---|---|---|
`)
	for _, m := range ownMetrics() {
		labels := strings.Join(m.labels, ", ")
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, labels, strings.ReplaceAll(m.help, "|", `\|`))
	}
	if *updateMetrics {
		if err := os.WriteFile("METRICS.md", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Error("gateway/METRICS.md is not what the metrics say: run go test ./gateway -run TestMetricsAreDocumented -update-metrics and look at the difference")
	}
}
