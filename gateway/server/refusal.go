package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// refusal is a no of the head phase. The reason is a metric label and the token that clients see; the closed list of
// them is below. Each is immutable.
type refusal struct {
	status int
	reason string
	detail string
	shut   bool // the connection is not to be used again: where this request ends is in doubt or costs too much to find
}

var (
	refuseRequestLine   = &refusal{400, "malformed_request_line", "The request line is malformed.", true}
	refuseTarget        = &refusal{400, "malformed_target", "The request target must be a path starting with a slash.", true}
	refuseField         = &refusal{400, "malformed_header", "A header field is malformed.", true}
	refuseFolding       = &refusal{400, "folded_header", "A header field is folded over several lines.", true}
	refuseBareLF        = &refusal{400, "bare_lf", "A line of the head ends without a carriage return.", true}
	refuseNoHost        = &refusal{400, "missing_host", "The request names no host.", true}
	refuseHost          = &refusal{400, "malformed_host", "The request's host is malformed or given twice.", true}
	refuseFraming       = &refusal{400, "ambiguous_framing", "The request's length is given in two ways.", true}
	refuseLength        = &refusal{400, "malformed_length", "Content-Length is malformed or given twice.", true}
	refuseChunk         = &refusal{400, "malformed_chunk", "The chunked request body is malformed.", true}
	refuseCoding        = &refusal{501, "unknown_transfer_coding", "The transfer coding of the request body is not known here.", true}
	refuseVersion       = &refusal{505, "version", "Only HTTP/1.0 and HTTP/1.1 are spoken on this connection.", true}
	refuseMethod        = &refusal{405, "method", "The method is not allowed here.", false}
	refuseProtocol      = &refusal{501, "protocol", "Only WebSocket is spoken over extended CONNECT.", false}
	refuseHeadTooLarge  = &refusal{431, "head_too_large", "The request line and header fields are too large together.", true}
	refuseTooManyFields = &refusal{431, "too_many_headers", "The request has too many header fields.", true}
	refuseSlowHead      = &refusal{408, "slow_head", "The request's head took too long to arrive.", true}
	refuseBodyTooLarge  = &refusal{413, "body_too_large", "The request body is too large.", true}
	refusePanic         = &refusal{500, "internal", "The request could not be handled.", true}
)

// allowedMethods goes with a 405 (RFC 9110 section 15.5.6).
const allowedMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

type refusalBody struct {
	Status    int    `json:"status"`
	Error     string `json:"error"`
	Detail    string `json:"detail"`
	RequestID string `json:"request_id"`
}

// write answers with the refusal: JSON when the client asked for it, else text.
func (no *refusal) write(w http.ResponseWriter, r *http.Request, id string) {
	h := w.Header()
	var body []byte
	if acceptsJSON(r.Header["Accept"]) {
		h.Set("Content-Type", "application/json")
		body, _ = json.Marshal(refusalBody{no.status, no.reason, no.detail, id}) // strings and an int always encode
		body = append(body, '\n')
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = []byte(strconv.Itoa(no.status) + " " + http.StatusText(no.status) + "\n" + no.detail + "\nRequest " + id + "\n")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	// RFC 9209 section 2.3.6: an intermediary answers a client error on the origin's behalf.
	if no.status < 500 {
		h.Set("Proxy-Status", "landfall; error=http_request_error; details="+no.reason)
	} else {
		h.Set("Proxy-Status", "landfall; error=proxy_internal_error; details="+no.reason)
	}
	if no.status == http.StatusMethodNotAllowed {
		h.Set("Allow", allowedMethods)
	}
	if no.shut && r.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	w.WriteHeader(no.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // nobody is left to tell
	}
}

// acceptsJSON tells whether an Accept header prefers JSON to text, by which of the two it names first. It need not be
// exact: it only chooses the form of an error.
func acceptsJSON(accept []string) bool {
	for _, v := range accept {
		v = strings.ToLower(v)
		j, t := strings.Index(v, "json"), strings.Index(v, "text/")
		if j >= 0 && (t < 0 || j < t) {
			return true
		}
	}
	return false
}

// headAcceptsJSON is acceptsJSON for a head that could not be parsed.
func headAcceptsJSON(b []byte) bool {
	for line := range bytes.Lines(b) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && equalFold(name, "accept") {
			return acceptsJSON([]string{string(value)})
		}
	}
	return false
}
