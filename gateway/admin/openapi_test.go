package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"landfall/configs"
)

// promised is the API as the project promises it; adding to it is fine, anything else breaks someone's script.
var promised = []string{
	"DELETE /v1/canaries/{service}/{to}", "DELETE /v1/faults/{id}", "DELETE /v1/flags/{flag}", "DELETE /v1/homes/{service}/move",
	"DELETE /v1/homes/{service}/pins/{user}", "DELETE /v1/nodes/{node}/drain", "DELETE /v1/origins/{origin}/breaker",
	"DELETE /v1/origins/{origin}/drain", "DELETE /v1/regions/{region}/drain", "DELETE /v1/regions/{region}/verdict",
	"DELETE /v1/services/{service}/regions/{region}/breaker", "DELETE /v1/services/{service}/regions/{region}/drain", "DELETE /v1/weights/{service}/{region}", "GET /", "GET /debug/pprof/",
	"GET /debug/pprof/{profile}", "GET /healthz", "GET /metrics", "GET /readyz", "GET /v1/breakers", "GET /v1/cache", "GET /v1/canaries",
	"GET /v1/certs", "GET /v1/config", "GET /v1/drains", "GET /v1/events", "GET /v1/explain", "GET /v1/faults", "GET /v1/flags", "GET /v1/fleet/keys",
	"GET /v1/homes", "GET /v1/homes/{service}/users/{user}", "GET /v1/nodes", "GET /v1/openapi.json", "GET /v1/pins", "GET /v1/purges/{id}",
	"GET /v1/regions", "GET /v1/services", "GET /v1/services/{service}/pools", "GET /v1/status", "GET /v1/verdicts", "GET /v1/weights",
	"POST /v1/fleet/keys", "POST /v1/purge", "PUT /v1/canaries/{service}/{to}", "PUT /v1/faults/{id}", "PUT /v1/flags/{flag}",
	"PUT /v1/homes/{service}/move", "PUT /v1/homes/{service}/pins/{user}", "PUT /v1/nodes/{node}/drain", "PUT /v1/origins/{origin}/breaker",
	"PUT /v1/origins/{origin}/drain", "PUT /v1/regions/{region}/drain", "PUT /v1/regions/{region}/verdict",
	"PUT /v1/services/{service}/regions/{region}/breaker", "PUT /v1/services/{service}/regions/{region}/drain", "PUT /v1/weights/{service}/{region}",
}

func loadDocument(t *testing.T, s *served) *openapi3.T {
	t.Helper()
	resp, body := s.do(t, request{line: "GET /v1/openapi.json"})
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	doc, err := openapi3.NewLoader().LoadFromData(body)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	golden(t, "openapi.json", body)
	return doc
}

func TestDocumentHasEveryRouteAndNoOther(t *testing.T) {
	s := serve(t, &fakeBackend{}, func(o *Options) { o.Admin.PProf = true })
	doc := loadDocument(t, s)
	var told []string
	ids := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			told = append(told, method+" "+path)
			if ids[op.OperationID] {
				t.Errorf("operationId %s is there twice", op.OperationID)
			}
			ids[op.OperationID] = true
		}
	}
	slices.Sort(told)
	if !slices.Equal(told, promised) {
		t.Errorf("the document has %q", told)
	}
	// The mux: every method on every path, told or not.
	for path := range doc.Paths.Map() {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH"} {
			resp, _ := s.do(t, request{line: method + " " + strings.NewReplacer("{", "a-", "}", "").Replace(path)})
			there := resp.StatusCode != http.StatusMethodNotAllowed
			if there != slices.Contains(told, method+" "+path) {
				t.Errorf("%s %s: %d", method, path, resp.StatusCode)
			}
		}
	}
}

// TestAnswersMatchTheDocument asks every operation, well and badly, and holds the real answers against their schemas.
func TestAnswersMatchTheDocument(t *testing.T) {
	s := serve(t, &fakeBackend{}, func(o *Options) {
		o.Admin = configs.Admin{PProf: true, Tokens: []configs.Token{token(t, "viewer", "see", "read")}}
	})
	s.log.SetNode("eu-1")
	s.log.Add("region.down", "eu-west", "no observer reaches it")
	doc := loadDocument(t, s)
	for _, schema := range doc.Components.Schemas {
		if len(schema.Value.Properties) > 0 { // what the document does not tell must not be sent
			schema.Value.AdditionalProperties.Has = openapi3.Ptr(false)
		}
	}
	const purge = `{"service":"shop","urls":["https://shop.example.com/"],"soft":true}`
	answered := map[string]bool{}
	for _, tt := range homeRequests {
		op := operationOf(t, doc, tt.q.line)
		answered[op.OperationID] = true
		checkAnswer(t, s, op, tt.q)
	}
	for _, q := range []request{
		{line: "GET /v1/status"}, {line: "GET /v1/regions"}, {line: "GET /v1/nodes"}, {line: "GET /v1/services"},
		{line: "GET /v1/services/shop/pools"}, {line: "GET /v1/services/none/pools"}, {line: "GET /v1/cache"}, {line: "GET /v1/certs"},
		{line: "GET /v1/config"}, {line: "GET /v1/drains"},
		{line: "GET /v1/explain?url=shop.example.com"}, {line: "GET /v1/explain?url=shop.example.com&client=192.0.2.7"}, {line: "GET /v1/explain"},
		{line: "PUT /v1/regions/eu-west/drain", body: `{"for":"1h","reason":"works","force":true}`}, {line: "PUT /v1/regions/us-east/drain"},
		{line: "PUT /v1/nodes/eu-1/drain?timeout=1s"}, {line: "PUT /v1/nodes/eu-1/drain", headers: []string{"Authorization: Bearer see"}},
		{line: "GET /v1/drains"}, {line: "DELETE /v1/nodes/eu-1/drain"}, {line: "DELETE /v1/regions/eu-west/drain"},
		{line: "PUT /v1/origins/10.1.1.1:8080/drain"}, {line: "DELETE /v1/origins/10.1.1.1:8080/drain"},
		{line: "PUT /v1/origins/10.1.1.1:8080/breaker", body: `{"state":"open","reason":"it lies"}`}, {line: "GET /v1/breakers"},
		{line: "PUT /v1/origins/10.1.1.1:8080/breaker", body: `{}`}, {line: "DELETE /v1/origins/10.1.1.1:8080/breaker"},
		{line: "PUT /v1/services/shop/regions/eu-west/breaker", body: `{"state":"open","for":"1h"}`}, {line: "DELETE /v1/services/shop/regions/eu-west/breaker"},
		{line: "GET /v1/flags"}, {line: "PUT /v1/flags/new", body: `{"weight":12.5}`}, {line: "PUT /v1/flags/new", body: `{"weight":101}`}, {line: "DELETE /v1/flags/new"}, {line: "DELETE /v1/flags/none"},
		{line: "GET /v1/faults"}, {line: "PUT /v1/faults/f1", body: `{"service":"shop","abort":503,"share":10,"for":"5m"}`}, {line: "PUT /v1/faults/f1", body: `{"abort":503}`},
		{line: "PUT /v1/faults/F%201", body: `{"abort":503,"for":"5m"}`}, {line: "PUT /v1/faults/f1", body: `{"delay":"1h","abort":99,"share":0,"slow_body":0,"for":"100d"}`},
		{line: "PUT /v1/faults/off", body: `{"reset":true,"for":"1s"}`}, {line: "DELETE /v1/faults/f1"},
		{line: "GET /v1/canaries"}, {line: "PUT /v1/canaries/shop/v2", body: `{"weight":0,"stopped":true,"reason":"slow"}`}, {line: "PUT /v1/canaries/shop/v2", body: `{"weight":5,"stopped":true}`},
		{line: "PUT /v1/canaries/shop/v3", body: `{"weight":5}`}, {line: "DELETE /v1/canaries/shop/v2"},
		{line: "POST /v1/purge", body: purge}, {line: "POST /v1/purge", body: "{}"}, {line: "POST /v1/purge", body: purge, headers: []string{"Content-Type: text/plain"}},
		{line: "GET /v1/weights"}, {line: "PUT /v1/weights/shop/eu-west", body: `{"weight":3,"force":true}`}, {line: "PUT /v1/weights/shop/none", body: `{"weight":3}`},
		{line: "PUT /v1/weights/shop/eu-west", body: `{"weight":-1}`}, {line: "DELETE /v1/weights/shop/eu-west"},
		{line: "PUT /v1/services/shop/regions/eu-west/drain", body: `{"over":"10m"}`}, {line: "DELETE /v1/services/shop/regions/eu-west/drain"},
		{line: "PUT /v1/nodes/eu-1/drain", body: `{"over":"10m"}`},
		{line: "GET /v1/verdicts"}, {line: "PUT /v1/regions/eu-west/verdict", body: `{"state":"down","for":"10m","reason":"cable works"}`},
		{line: "PUT /v1/regions/eu-west/verdict?service=shop", body: `{"state":"up"}`}, {line: "PUT /v1/regions/none/verdict", body: `{}`},
		{line: "DELETE /v1/regions/eu-west/verdict?service=none"}, {line: "DELETE /v1/regions/eu-west/verdict?service=shop"},
		{line: "GET /v1/fleet/keys"}, {line: "POST /v1/fleet/keys", body: `{"step":"add"}`}, {line: "POST /v1/fleet/keys", body: `{"step":"remove"}`},
		{line: "POST /v1/fleet/keys", body: `{"step":"melt"}`}, {line: "POST /v1/fleet/keys", body: `{"force":true}`},
		{line: "GET /v1/purges/p1"}, {line: "GET /v1/purges/p2"},
		{line: "GET /v1/events"}, {line: "GET /v1/events?limit=0"}, {line: "GET /v1/status", headers: []string{remoteHeader + ": yes"}},
		{line: "GET /v1/openapi.json"}, {line: "GET /healthz"}, {line: "GET /readyz"}, {line: "GET /metrics"},
		{line: "GET /"}, {line: "GET /", headers: []string{"Accept: text/html"}},
		{line: "GET /debug/pprof/"}, {line: "GET /debug/pprof/goroutine"}, {line: "GET /debug/pprof/none"},
	} {
		op := operationOf(t, doc, q.line)
		answered[op.OperationID] = true
		checkAnswer(t, s, op, q)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !answered[op.OperationID] {
				t.Errorf("%s %s was not asked", method, path)
			}
		}
	}
}

func operationOf(t *testing.T, doc *openapi3.T, line string) *openapi3.Operation {
	t.Helper()
	method, path, _ := strings.Cut(line, " ")
	path, _, _ = strings.Cut(path, "?")
	if item := doc.Paths.Value(path); item != nil {
		return item.GetOperation(method)
	}
	for pattern, item := range doc.Paths.Map() {
		want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
		if len(want) == len(got) && slices.EqualFunc(want, got, func(w, g string) bool { return w == g || strings.HasPrefix(w, "{") && g != "" }) {
			return item.GetOperation(method)
		}
	}
	t.Fatalf("the document has no %s", line)
	return nil
}

func checkAnswer(t *testing.T, s *served, op *openapi3.Operation, q request) {
	t.Helper()
	resp, body := s.do(t, q)
	told := op.Responses.Status(resp.StatusCode)
	if told == nil {
		t.Errorf("%s: %d is not in the document: %s", q.line, resp.StatusCode, body)
		return
	}
	media := resp.Header.Get("Content-Type")
	content := told.Value.Content.Get(media)
	if content == nil {
		t.Errorf("%s: %d as %q is not in the document", q.line, resp.StatusCode, media)
		return
	}
	if !strings.Contains(media, "json") {
		return
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Errorf("%s: %v", q.line, err)
		return
	}
	if err := content.Schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
		t.Errorf("%s: %d %s: %v", q.line, resp.StatusCode, body, err)
	}
}

func TestBodiesMatchTheDocument(t *testing.T) {
	doc := loadDocument(t, serve(t, &fakeBackend{}, nil))
	for name, good := range map[string]bool{
		`DrainSpec {}`: true, `DrainSpec {"for":"1h","reason":"x","force":true}`: true, `DrainSpec {"over":"1h"}`: true, `DrainSpec {"for":1}`: false,
		`PurgeRequest {"service":"shop","urls":["https://shop.example.com/"]}`: true, `PurgeRequest {"service":"shop","keys":["sku-1"],"soft":true}`: true, `PurgeRequest {"urls":["https://shop.example.com/"]}`: false,
		`PurgeRequest {"service":"shop","urls":["https://shop.example.com/"],"tags":["a"]}`: false,
	} {
		schema, body, _ := strings.Cut(name, " ")
		var v any
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatal(err)
		}
		if err := doc.Components.Schemas[schema].Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); (err == nil) != good {
			t.Errorf("%s: the document says %v", name, err)
		}
		var err error
		if schema == "DrainSpec" {
			_, err = decodeDrain([]byte(body))
		} else {
			_, err = decodePurge([]byte(body))
		}
		if (err == nil) != good {
			t.Errorf("%s: the handler says %v", name, err)
		}
	}
}

// TestEverythingIsDescribed wants a description of each field, since the document is the API's only manual.
func TestEverythingIsDescribed(t *testing.T) {
	doc := loadDocument(t, serve(t, &fakeBackend{}, nil))
	var missing bytes.Buffer
	for name, schema := range doc.Components.Schemas {
		for field, property := range schema.Value.Properties {
			if property.Value.Description == "" && property.Ref == "" {
				fmt.Fprintf(&missing, "%s.%s ", name, field)
			}
		}
	}
	if missing.Len() > 0 {
		t.Errorf("no description: %s", missing.String())
	}
}
