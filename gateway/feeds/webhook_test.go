package feeds

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
)

func TestWebhook(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	old, current := "an older secret of the hook", "whsec_"+base64.StdEncoding.EncodeToString([]byte("the current secret, in base64"))
	c := configs.Purge{Webhooks: map[string]configs.PurgeWebhook{"cms": {
		Secrets: configs.StringList{current, old}, Window: configs.Duration(5 * time.Minute), Map: bySKU,
	}}}
	k := newTaker(t, "n1", c)
	k.feeds.o.Now = func() time.Time { return now }
	sign := func(secret, id string, at time.Time, body string) http.Header {
		key, err := configs.WebhookSecret(secret)
		if err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body)
		h := http.Header{}
		h.Set("Webhook-Id", id)
		h.Set("Webhook-Timestamp", fmt.Sprint(at.Unix()))
		h.Set("Webhook-Signature", "v1a,xx v1,bm8= v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		return h
	}
	call := func(method, path string, h http.Header, body string) (int, bool) {
		r := httptest.NewRequest(method, "http://shop.test"+path, strings.NewReader(body))
		r.Header = h
		w := httptest.NewRecorder()
		ours := k.feeds.ServeWebhook(w, r)
		return w.Code, ours
	}
	path := WebhookPath + "cms"
	for name, c := range map[string]struct {
		header http.Header
		body   string
		want   int
	}{
		"signed":           {sign(current, "1", now, sku(1)), sku(1), 204},
		"by the old":       {sign(old, "2", now, sku(2)), sku(2), 204},
		"by another":       {sign("another secret altogether", "3", now, sku(3)), sku(3), 401},
		"changed":          {sign(current, "4", now, sku(4)), sku(5), 401},
		"too old":          {sign(current, "5", now.Add(-6*time.Minute), sku(5)), sku(5), 401},
		"from the future":  {sign(current, "6", now.Add(6*time.Minute), sku(6)), sku(6), 401},
		"unsigned":         {http.Header{}, sku(7), 401},
		"not understood":   {sign(current, "8", now, "x"), "x", 422},
		"names nothing":    {sign(current, "9", now, "{}"), "{}", 204},
		"larger than most": {sign(current, "10", now, "{}"), strings.Repeat(" ", maxEvent+1), 413},
	} {
		if got, ours := call("POST", path, c.header, c.body); got != c.want || !ours {
			t.Errorf("%s: %d", name, got)
		}
	}
	if got, _ := call("POST", path, sign(current, "1", now, sku(1)), sku(1)); got != 204 || len(k.purges) != 2 {
		t.Errorf("a replay: %d, and %d purges", got, len(k.purges))
	}
	if got := strings.Join(k.keys(), " "); got != "sku-1 sku-2" {
		t.Errorf("%s was purged", got)
	}
	k.feeds.Set(c) // a reload forgets no id
	if _, _ = call("POST", path, sign(current, "1", now, sku(1)), sku(1)); len(k.purges) != 2 {
		t.Error("a reload lets a replay through")
	}
	fail := true
	k.fail = func(Purge) error {
		if fail {
			return errors.New("no disk")
		}
		return nil
	}
	if got, _ := call("POST", path, sign(current, "11", now, sku(11)), sku(11)); got != 503 {
		t.Errorf("not durable: %d", got)
	}
	fail = false
	if got, _ := call("POST", path, sign(current, "11", now, sku(11)), sku(11)); got != 204 || len(k.purges) != 3 {
		t.Errorf("again: %d", got)
	}
	if got, ours := call("GET", path, http.Header{}, ""); got != 405 || !ours {
		t.Errorf("GET: %d", got)
	}
	for _, path := range []string{"/", WebhookPath, WebhookPath + "none"} {
		if _, ours := call("POST", path, http.Header{}, ""); ours {
			t.Errorf("%s is no webhook", path)
		}
	}
	h := k.feeds.hooks["cms"]
	for i := range maxRemembered + 10 {
		h.enter(fmt.Sprint("many-", i), now)
	}
	if len(h.seen) > maxRemembered+1 {
		t.Errorf("%d ids are remembered", len(h.seen))
	}
}

// A call that is repeated before the first is answered is no success yet, and one that was refused is refused again.
func TestWebhookRepeats(t *testing.T) {
	secret := "a secret of thirty-two characters"
	c := configs.Purge{Webhooks: map[string]configs.PurgeWebhook{"cms": {
		Secrets: configs.StringList{secret}, Window: configs.Duration(5 * time.Minute), Map: bySKU,
	}}}
	k := newTaker(t, "n1", c)
	call := func(id, body string) int {
		stamp := fmt.Sprint(time.Now().Unix())
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
		r := httptest.NewRequest("POST", "http://shop.test"+WebhookPath+"cms", strings.NewReader(body))
		r.Header.Set("Webhook-Id", id)
		r.Header.Set("Webhook-Timestamp", stamp)
		r.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		w := httptest.NewRecorder()
		k.feeds.ServeWebhook(w, r)
		return w.Code
	}
	begun, end := make(chan struct{}), make(chan error)
	k.fail = func(Purge) error { close(begun); return <-end }
	first := make(chan int)
	go func() { first <- call("1", sku(1)) }()
	<-begun
	if got := call("1", sku(1)); got != 503 {
		t.Errorf("while the first is under way: %d", got)
	}
	k.feeds.Set(c)
	if got := call("1", sku(1)); got != 503 {
		t.Errorf("while the first is under way, after a reload: %d", got)
	}
	end <- errors.New("no disk")
	if got := <-first; got != 503 {
		t.Errorf("not durable: %d", got)
	}
	k.fail = nil
	if got := call("1", sku(1)); got != 204 || len(k.keys()) != 1 {
		t.Errorf("again: %d", got)
	}
	for range 2 {
		if got := call("2", "x"); got != 422 {
			t.Errorf("not understood: %d", got)
		}
	}
}

// Calls of before and after a reload remember their ids in one place.
func TestWebhookReload(t *testing.T) {
	c := configs.Purge{Webhooks: map[string]configs.PurgeWebhook{"cms": {Window: configs.Duration(time.Minute)}}}
	f := New(Options{Metrics: NewMetrics(prometheus.NewRegistry())})
	f.Set(c)
	before := f.hooks["cms"]
	f.Set(c)
	var calls sync.WaitGroup
	for i, h := range []*hook{before, f.hooks["cms"]} {
		calls.Go(func() {
			for n := range 1000 {
				h.enter(fmt.Sprint(i, n), time.Now())
			}
		})
	}
	calls.Wait()
	before.enter("late", time.Now())
	if fresh, _ := f.hooks["cms"].enter("late", time.Now()); fresh {
		t.Error("what came during a reload is forgotten")
	}
}
