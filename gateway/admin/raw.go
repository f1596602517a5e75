package admin

import (
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	runtimepprof "runtime/pprof"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxProfile bounds how long a profile may be taken, in seconds.
const maxProfile = 120

func (a *API) openAPIDocument(w http.ResponseWriter, _ *call) (int, any, error) {
	w.Header().Set("Content-Type", "application/json")
	a.deliver(w, a.document)
	return 0, nil, nil
}

func (a *API) healthz(w http.ResponseWriter, _ *call) (int, any, error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	a.deliver(w, []byte("ok\n"))
	return 0, nil, nil
}

// readyz names what is missing, for the one who wonders why a node gets no traffic.
func (a *API) readyz(w http.ResponseWriter, _ *call) (int, any, error) {
	ready, missing := a.backend.Ready()
	if !ready {
		detail := "the node is not ready"
		if len(missing) > 0 {
			detail += ": " + strings.Join(missing, ", ")
		}
		return 0, nil, problem(http.StatusServiceUnavailable, codeNotReady, "Not ready", detail).with("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	a.deliver(w, []byte("ready\n"))
	return 0, nil, nil
}

// deliver writes a whole answer. That the reader has gone is no one's fault.
func (a *API) deliver(w http.ResponseWriter, body []byte) {
	if _, err := w.Write(body); err != nil {
		a.logger.Debug("admin answer not delivered", "error", err)
	}
}

func (a *API) metricsHandler() func(http.ResponseWriter, *call) (int, any, error) {
	h := promhttp.HandlerFor(a.gatherer, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError, // one broken collector must not hide the others
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 4,
	})
	return func(w http.ResponseWriter, c *call) (int, any, error) {
		h.ServeHTTP(w, c.Request)
		return 0, nil, nil
	}
}

// profile serves Go's profiles. Names and lengths are checked here, so that refusals are problem documents.
func (a *API) profile(w http.ResponseWriter, c *call) (int, any, error) {
	if !a.gate.Load().pprof {
		return 0, nil, problem(http.StatusNotFound, codeNotFound, "Not found", "profiles are off; set pprof: true under admin in the config")
	}
	if text := c.FormValue("seconds"); text != "" {
		if s, err := strconv.ParseFloat(text, 64); err != nil || !(s > 0 && s <= maxProfile) {
			return 0, nil, Invalid("seconds", fmt.Sprintf("%q is not a number of seconds up to %d", clip(text, 40), maxProfile))
		}
	}
	name := c.PathValue("profile")
	handlers := map[string]http.HandlerFunc{"cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace}
	switch h := handlers[name]; {
	case h != nil:
		h(w, c.Request)
	case name == "":
		pprof.Index(w, c.Request)
	case runtimepprof.Lookup(name) != nil:
		pprof.Handler(name).ServeHTTP(w, c.Request)
	default:
		known := []string{"cmdline", "profile", "symbol", "trace"}
		for _, p := range runtimepprof.Profiles() {
			known = append(known, p.Name())
		}
		return 0, nil, NotFound("profile", name, known)
	}
	return 0, nil, nil
}

// indexEntry is a line of the index.
type indexEntry struct {
	Method, Path, Summary string
	Link                  string // empty where a link would lead nowhere
}

var indexPage = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Landfall: {{.Status.Node}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem;max-width:60rem}td{padding:.1rem 1rem .1rem 0;vertical-align:top}code{font-size:.9em}</style>
<h1>Landfall</h1>
<p>Node <b>{{.Status.Node}}</b> in region <b>{{.Status.Region}}</b> of fleet <b>{{.Status.Fleet}}</b>: {{.Status.State}}, up {{.Status.Uptime}}, version {{.Status.Version}}, config {{.Status.ConfigHash}}.</p>
<table>
{{range .Entries}}<tr><td>{{.Method}}<td><code>{{if .Link}}<a href="{{.Link}}">{{.Path}}</a>{{else}}{{.Path}}{{end}}</code><td>{{.Summary}}
{{end}}</table>
`))

// index is what is here: a page for a browser, a table for a terminal.
func (a *API) index(w http.ResponseWriter, c *call) (int, any, error) {
	status := a.backend.Status()
	var entries []indexEntry
	for _, o := range a.listed {
		if strings.HasPrefix(o.path, "/debug/") && !a.gate.Load().pprof || o.id == "getIndex" {
			continue
		}
		e := indexEntry{Method: o.method, Path: strings.TrimSuffix(o.path, "{$}"), Summary: o.summary}
		if !o.changes() && len(pathNames(o.path)) == 0 {
			e.Link = e.Path + exampleQuery(o.query)
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(x, y indexEntry) int { return strings.Compare(x.Path, y.Path) })
	w.Header().Set("Vary", "Accept")
	var err error
	if strings.Contains(c.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
		err = indexPage.Execute(w, map[string]any{"Status": status, "Entries": entries})
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		err = indexText(w, status, entries)
	}
	if err != nil {
		a.logger.Debug("admin index not delivered", "error", err)
	}
	return 0, nil, nil
}

func indexText(w io.Writer, status Status, entries []indexEntry) error {
	fmt.Fprintf(w, "Landfall: node %s in region %s of fleet %s, %s, up %s\n\n", status.Node, status.Region, status.Fleet, status.State, status.Uptime)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range entries {
		fmt.Fprintf(table, "%s\t%s\t%s\n", e.Method, e.Path, e.Summary)
	}
	return table.Flush()
}

// exampleQuery fills in the parameters that an operation can not do without.
func exampleQuery(query []parameter) string {
	values := url.Values{}
	for _, p := range query {
		if p.required {
			values.Set(p.name, p.example)
		}
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}
