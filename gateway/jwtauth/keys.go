package jwtauth

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	maxSet    = 1 << 20 // bytes of a JWK set
	maxKeys   = 100
	leastRSA  = 2048 // bits (RFC 7518 section 3.3)
	fetchTime = 5 * time.Second
	patience  = 2 * time.Second // that a request waits for keys that it can't do without
	tryEvery  = time.Second     // after a fetch that failed
	// askEvery is for a key that the set had not. Anybody can name keys that nobody has, so this is also for how long
	// others' inventions may keep a real new key from being fetched.
	askEvery   = 2 * time.Second
	leastFresh = time.Minute
)

// KeysOptions tell where keys are and how long they serve.
type KeysOptions struct {
	URL     string
	Refresh time.Duration // after which they are fetched again; a shorter max-age of theirs is heeded, down to a minute
	Stale   time.Duration // for so much longer they serve when that fails
	Client  *http.Client
	Logger  *slog.Logger
	Fetches *prometheus.CounterVec // by result: ok, failed
	Now     func() time.Time
}

// Keys are an issuer's keys, fetched when they are first needed and again in the background. Safe for concurrent use.
type Keys struct {
	o       KeysOptions
	set     atomic.Pointer[keySet] // nil: none yet
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	fetching chan struct{} // closed when the fetch under way ends; nil: there is none
	tried    time.Time
	closed   bool
}

// keySet is immutable.
type keySet struct {
	keys  []jose.JSONWebKey
	at    time.Time
	fresh time.Duration
}

// NewKeys begins to fetch the keys. Close ends it.
func NewKeys(o KeysOptions) *Keys {
	k := &Keys{o: o}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.refresh(0)
	return k
}

// Close ends a fetch under way and waits for it.
func (k *Keys) Close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.running.Wait()
}

// ErrNoKeys tells that there are no keys to check a token with: nothing is wrong with the token.
var ErrNoKeys = errors.New("the issuer's keys could not be fetched")

// refresh starts a fetch unless one is under way or was just tried, and gives what its end closes; nil: none.
func (k *Keys) refresh(notWithin time.Duration) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.o.Now()
	if k.fetching != nil || k.closed || now.Sub(k.tried) < notWithin {
		return k.fetching
	}
	k.tried = now
	done := make(chan struct{})
	k.fetching = done
	k.running.Go(func() {
		k.fetch()
		k.mu.Lock()
		k.fetching = nil
		k.mu.Unlock()
		close(done)
	})
	return done
}

// candidates are the keys that may have signed a token. It waits only when there is none, and not for long.
func (k *Keys) candidates(ctx context.Context, id, algorithm string) ([]jose.JSONWebKey, error) {
	set := k.set.Load()
	if set != nil {
		age := k.o.Now().Sub(set.at)
		if age > set.fresh {
			k.refresh(tryEvery)
		}
		if age > set.fresh+k.o.Stale {
			set = nil
		} else if found := set.find(id, algorithm); len(found) > 0 {
			return found, nil
		}
	}
	within := askEvery // anybody can name keys that nobody has
	if set == nil {
		within = tryEvery
	}
	if done := k.refresh(within); done != nil {
		wait := time.NewTimer(patience)
		defer wait.Stop()
		select {
		case <-done:
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	set = k.set.Load()
	if set == nil || k.o.Now().Sub(set.at) > set.fresh+k.o.Stale {
		return nil, ErrNoKeys
	}
	return set.find(id, algorithm), nil
}

// find gives the keys of an id, or of any when the token names none, that are for an algorithm.
func (s *keySet) find(id, algorithm string) (out []jose.JSONWebKey) {
	for _, key := range s.keys {
		if (id == "" || key.KeyID == id) && (key.Algorithm == "" || key.Algorithm == algorithm) {
			out = append(out, key)
		}
	}
	return out
}

func (k *Keys) fetch() {
	set, err := k.get()
	if err != nil {
		k.o.Fetches.WithLabelValues("failed").Inc()
		k.o.Logger.Warn("the keys that tokens are checked with can't be fetched; those at hand go on serving", "url", k.o.URL, "error", err)
		return
	}
	k.o.Fetches.WithLabelValues("ok").Inc()
	k.set.Store(set)
}

func (k *Keys) get() (*keySet, error) {
	ctx, cancel := context.WithTimeout(k.ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.o.URL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := k.o.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxSet+1))
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, err
	}
	return &keySet{keys: keys, at: k.o.Now(), fresh: k.freshFor(resp.Header)}, nil
}

// freshFor heeds the set's own max-age where it is shorter.
func (k *Keys) freshFor(h http.Header) time.Duration {
	for part := range strings.SplitSeq(h.Get("Cache-Control"), ",") {
		if text, ok := strings.CutPrefix(strings.TrimSpace(part), "max-age="); ok {
			if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < int(k.o.Refresh/time.Second) {
				return max(time.Duration(n)*time.Second, min(leastFresh, k.o.Refresh))
			}
		}
	}
	return k.o.Refresh
}

// parseKeys reads a JWK set and keeps what can verify signatures: public keys, strong enough, for that use. A key that it
// does not know is passed over (RFC 7517 section 5).
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	if len(data) > maxSet {
		return nil, fmt.Errorf("the key set has more than %d bytes", maxSet)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("the key set is not JSON: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys; the most is %d", len(set.Keys), maxKeys)
	}
	var out []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil || !key.Valid() || key.Use != "" && key.Use != "sig" {
			continue
		}
		if _, symmetric := key.Key.([]byte); symmetric {
			continue // who publishes a secret has none
		}
		if !key.IsPublic() {
			key = key.Public()
		}
		if r, ok := key.Key.(*rsa.PublicKey); ok && r.N.BitLen() < leastRSA {
			continue
		}
		out = append(out, key)
	}
	if len(out) == 0 {
		return nil, errors.New("the key set has no public key that can verify signatures")
	}
	return out, nil
}
