package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestFeedsPurge: an event of a stream and a signed call purge what they name, a host of another service is poison, and
// the admin API tells how the stream stands.
func TestFeedsPurge(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(long) {
		t.Fatal("NATS did not start")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "CATALOG", Subjects: []string{"catalog"}}); err != nil {
		t.Fatal(err)
	}
	c := newCounting()
	c.set(nil, "Cache-Control: max-age=600", "Surrogate-Key: sku-7")
	p := start(t, Options{ConfigFile: write(t, t.TempDir()+"/fleet.yaml", fmt.Sprintf(`
listen: {http: ["127.0.0.1:0"]}
services: {web: {hosts: [shop.test], pools: {any: {origins: ["%s"]}}}}
purge:
  sources: [{nats: "%s", stream: CATALOG, map: {service: web, keys: ["sku-{sku}"], urls: ["http://{host}.test/p"]}}]
  webhooks: {cms: {secrets: [sixteen bytes at least], map: {service: web, urls: ["http://shop.test/{page}"]}}}
`, origin(t, c.ServeHTTP), s.ClientURL()))})
	client := browser(t, p.listen["http"], nil)
	page := func() string { _, body := get(t, client, "GET", "http://shop.test/p"); return body }
	page()
	c.version.Store(1)
	eventually(t, "the stream is consumed", func() bool {
		st, err := p.admin.Cache(t.Context())
		return err == nil && len(st.Sources) == 1 && st.Sources[0].Connected
	})
	if page() != "0" {
		t.Fatal("not cached")
	}
	if _, err := js.Publish(t.Context(), "catalog", []byte(`{"sku": 7}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event's key is purged", func() bool { return page() == "1" })
	if _, err := js.Publish(t.Context(), "catalog", []byte(`{"host": "elsewhere"}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a host of nobody's is poison", func() bool { return p.hasEvent("purge.poison nats/CATALOG/landfall") })

	c.version.Store(2)
	body, stamp := `{"page": "p"}`, fmt.Sprint(time.Now().Unix())
	mac := hmac.New(sha256.New, []byte("sixteen bytes at least"))
	fmt.Fprintf(mac, "id-1.%s.%s", stamp, body)
	r, _ := http.NewRequest("POST", "http://shop.test/.well-known/landfall/purge/cms", strings.NewReader(body))
	r.Header.Set("Webhook-Id", "id-1")
	r.Header.Set("Webhook-Timestamp", stamp)
	r.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 204 || page() != "2" {
		t.Errorf("%s, then %q", resp.Status, page())
	}
	if st, err := p.admin.Cache(t.Context()); err != nil || st.Sources[0].Purged != 1 || st.Sources[0].Poison != 1 {
		t.Errorf("%+v %v", st, err)
	}
}
