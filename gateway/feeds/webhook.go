package feeds

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"landfall/configs"
)

// WebhookPath is where webhooks are taken; their name follows.
const WebhookPath = "/.well-known/landfall/purge/"

// maxRemembered bounds the ids of one webhook that are remembered; the oldest go first, and their window with them.
const maxRemembered = 100_000

// hook is a webhook. Safe for concurrent use.
type hook struct {
	name    string
	c       configs.PurgeWebhook
	rule    rule
	secrets [][]byte
	*calls
}

// calls are the calls of a webhook that were taken. They outlast reloads, over which calls may be under way.
type calls struct {
	mu    sync.Mutex
	seen  map[string]call // by id
	order []string        // ids, oldest first
}

// call is one call that was taken.
type call struct {
	until time.Time // when it may be forgotten
	done  bool      // it was answered with a success
}

// setHooks puts webhooks in force. Callers hold mu.
func (f *Feeds) setHooks(all map[string]configs.PurgeWebhook) {
	next := map[string]*hook{}
	for name, c := range all {
		h := &hook{name: name, c: c, rule: newRule(c.Map), calls: &calls{seen: map[string]call{}}}
		if old := f.hooks[name]; old != nil { // what was taken stays taken
			h.calls = old.calls
		}
		for _, s := range c.Secrets {
			if key, err := configs.WebhookSecret(s); err == nil { // validation lets only sound ones through
				h.secrets = append(h.secrets, key)
			}
		}
		next[name] = h
	}
	f.hooks = next
}

// ServeWebhook answers a request if it is for a webhook, and tells whether it was.
func (f *Feeds) ServeWebhook(w http.ResponseWriter, r *http.Request) bool {
	name, ok := strings.CutPrefix(r.URL.Path, WebhookPath)
	if !ok {
		return false
	}
	f.mu.Lock()
	h := f.hooks[name]
	f.mu.Unlock()
	if h == nil {
		return false
	}
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "a webhook takes POST", http.StatusMethodNotAllowed)
		return true
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvent))
	if err != nil {
		http.Error(w, "the body is larger than a webhook may be, or broke off", http.StatusRequestEntityTooLarge)
		return true
	}
	result, status, text := f.takeHook(h, r, body)
	f.o.Metrics.hooks.WithLabelValues(h.name, result).Inc()
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return true
	}
	http.Error(w, text, status)
	return true
}

// takeHook carries a webhook call out. The answer is a success only once the purge is durable; senders repeat the rest.
func (f *Feeds) takeHook(h *hook, r *http.Request, body []byte) (result string, status int, text string) {
	id, now := r.Header.Get("Webhook-Id"), f.o.Now()
	if err := h.signed(r.Header, body, now); err != nil {
		return "unsigned", http.StatusUnauthorized, err.Error()
	}
	switch fresh, done := h.enter(id, now); {
	case done:
		return "repeated", http.StatusNoContent, ""
	case !fresh: // its sender lost patience: what comes of it is not known yet
		return failed, http.StatusServiceUnavailable, "the same call is under way; try again"
	}
	defer func() {
		if status == http.StatusNoContent {
			h.finish(id)
		} else {
			h.leave(id) // it may come again
		}
	}()
	p, err := h.rule.apply(body)
	if err == nil && p.empty() {
		return ignored, http.StatusNoContent, ""
	}
	if err == nil {
		p.By = "webhook/" + h.name
		err = f.o.Purge(r.Context(), p)
		if err != nil && !errors.Is(err, ErrRefused) {
			return failed, http.StatusServiceUnavailable, "the purge was not made durable; try again"
		}
	}
	if err != nil {
		f.o.Event("purge.poison", "webhook/"+h.name, "a call was refused: "+err.Error()+": "+excerpt(body))
		return poison, http.StatusUnprocessableEntity, err.Error()
	}
	return purged, http.StatusNoContent, ""
}

// signed checks a call by the Standard Webhooks specification: an HMAC-SHA256 over id, timestamp and body, compared in
// constant time, and a timestamp within the window.
func (h *hook) signed(header http.Header, body []byte, now time.Time) error {
	id, stamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	if id == "" || len(id) > 256 || stamp == "" {
		return errors.New("webhook-id and webhook-timestamp are missing")
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return errors.New("webhook-timestamp is not a number of seconds")
	}
	if away := now.Sub(time.Unix(seconds, 0)).Abs(); away > h.c.Window.D() {
		return errors.New("webhook-timestamp is too far from this node's clock")
	}
	valid := false
	signatures := strings.Fields(header.Get("Webhook-Signature"))
	for _, key := range h.secrets {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		want := mac.Sum(nil)
		for _, s := range signatures[:min(len(signatures), 16)] {
			version, value, _ := strings.Cut(s, ",")
			got, err := base64.StdEncoding.DecodeString(value)
			if version == "v1" && err == nil && hmac.Equal(got, want) {
				valid = true
			}
		}
	}
	if !valid {
		return errors.New("webhook-signature does not fit")
	}
	return nil
}

// enter notes an id, and tells whether it is new, or else whether its call is done. An id is remembered for as long as its
// timestamp could be valid.
func (h *hook) enter(id string, now time.Time) (fresh, done bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.order) > 0 && (len(h.order) > maxRemembered || now.After(h.seen[h.order[0]].until)) {
		delete(h.seen, h.order[0])
		h.order = h.order[1:]
	}
	if c, again := h.seen[id]; again {
		return false, c.done
	}
	h.seen[id] = call{until: now.Add(2 * h.c.Window.D())}
	h.order = append(h.order, id)
	return true, false
}

func (h *hook) finish(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c, ok := h.seen[id]; ok {
		c.done = true
		h.seen[id] = c
	}
}

func (h *hook) leave(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.seen, id) // its place in order is found empty
}
