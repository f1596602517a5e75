package healthcheck

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// DoorPath is the reserved path by which observers ask front doors. A request for it without a good pass is an ordinary
// request, so nobody outside learns of it or by it.
const DoorPath = "/.well-known/landfall/front-door"

// DoorHeader carries an observer's pass and the seal of the answer to it.
const DoorHeader = "Landfall-Front-Door"

const (
	passAge   = 2 * time.Minute // clocks may differ by so much; a pass that is used again learns nothing new
	maxPass   = 160             // bytes
	maxAnswer = 4 << 10         // bytes of an answer
)

// Passes makes and checks what observers and front doors prove themselves by: HMAC-SHA-256 with keys derived from the
// mesh's. The first key signs, all verify, so that keys rotate without a gap. It is safe for concurrent use.
type Passes struct {
	fleet string
	keys  atomic.Pointer[[][]byte]
}

// NewPasses makes passes of a fleet's mesh keys. Without keys nothing passes.
func NewPasses(fleet string, keys [][]byte) *Passes {
	p := &Passes{fleet: fleet}
	p.SetKeys(keys)
	return p
}

// SetKeys replaces the mesh keys.
func (p *Passes) SetKeys(keys [][]byte) {
	var derived [][]byte
	for _, k := range keys {
		derived = append(derived, sum(k, "landfall front door", p.fleet))
	}
	p.keys.Store(&derived)
}

// sum is the HMAC over parts, each after its length.
func sum(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, part := range parts {
		_, _ = fmt.Fprintf(h, "%d\x00%s", len(part), part)
	}
	return h.Sum(nil)
}

// sign is the seal over parts by the first key; empty without one.
func (p *Passes) sign(parts ...string) string {
	keys := *p.keys.Load()
	if len(keys) == 0 {
		return ""
	}
	return hex.EncodeToString(sum(keys[0], parts...))
}

func (p *Passes) verify(seal string, parts ...string) bool {
	got, err := hex.DecodeString(seal)
	if err != nil {
		return false
	}
	for _, k := range *p.keys.Load() {
		if hmac.Equal(got, sum(k, parts...)) {
			return true
		}
	}
	return false
}

// Ask is a new pass for a host, and the nonce that ties the answer to it.
func (p *Passes) Ask(host string, now time.Time) (pass, nonce string) {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	nonce = hex.EncodeToString(b)
	at := strconv.FormatInt(now.Unix(), 10)
	return "1." + at + "." + nonce + "." + p.sign("ask", host, at, nonce), nonce
}

// Admit checks the pass of a request for DoorPath on a host, in lower case and without a port.
func (p *Passes) Admit(r *http.Request, host string, now time.Time) (nonce string, ok bool) {
	pass := r.Header.Get(DoorHeader)
	parts := strings.Split(pass, ".")
	if len(pass) > maxPass || len(parts) != 4 || parts[0] != "1" {
		return "", false
	}
	at, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || now.Sub(time.Unix(at, 0)).Abs() > passAge || !p.verify(parts[3], "ask", host, parts[1], parts[2]) {
		return "", false
	}
	return parts[2], true
}

// DoorAnswer is what a front door says of a service.
type DoorAnswer struct {
	Service string `json:"service"`
	Region  string `json:"region"`
	Node    string `json:"node"`
	State   string `json:"state"` // of the pool, as it was found by asking through it: up, unknown or down
	Detail  string `json:"detail,omitempty"`
}

// Seal is an answer as it goes out: its body and the value of DoorHeader.
func (p *Passes) Seal(nonce string, a DoorAnswer) (body []byte, seal string) {
	if len(a.Detail) > maxDetail {
		a.Detail = a.Detail[:maxDetail]
	}
	a.Detail = strings.ToValidUTF8(a.Detail, "")
	body, err := json.Marshal(a)
	if err != nil {
		return nil, "" // strings only: it can't happen
	}
	return body, p.sign("answer", nonce, string(body))
}

// maxDetail bounds the text of an answer in bytes.
const maxDetail = 256

var errNoSeal = errors.New("something else answers there: the answer is not of this fleet")

// Open checks an answer's seal and reads it.
func (p *Passes) Open(nonce, seal string, body []byte) (DoorAnswer, error) {
	var a DoorAnswer
	if len(body) > maxAnswer || !p.verify(seal, "answer", nonce, string(body)) {
		return a, errNoSeal
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("the answer is not understood: %w", err)
	}
	return a, nil
}
