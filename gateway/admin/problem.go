package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// The kinds of problem: a closed list. Problem.Type is problemPrefix and one of these.
const (
	codeInvalid          = "invalid-request"        // 400
	codeUnauthorized     = "unauthorized"           // 401
	codeForbidden        = "forbidden"              // 403
	codeHost             = "host-refused"           // 403
	codeCrossOrigin      = "cross-origin"           // 403
	codeNotFound         = "not-found"              // 404
	codeMethodNotAllowed = "method-not-allowed"     // 405
	codeRefused          = "refused"                // 409
	codeTooLarge         = "too-large"              // 413
	codeMediaType        = "unsupported-media-type" // 415
	codeTooManyAttempts  = "too-many-attempts"      // 429
	codeInternal         = "internal"               // 500
	codeNotReady         = "not-ready"              // 503
	codeUnavailable      = "unavailable"            // 503
	codeTimeout          = "timeout"                // 504
)

// problemTypes is the closed list as it stands in Problem.Type, in the order of the statuses.
func problemTypes() []string {
	codes := []string{codeInvalid, codeUnauthorized, codeForbidden, codeHost, codeCrossOrigin, codeNotFound, codeMethodNotAllowed, codeRefused,
		codeTooLarge, codeMediaType, codeTooManyAttempts, codeInternal, codeNotReady, codeUnavailable, codeTimeout}
	for i, code := range codes {
		codes[i] = problemPrefix + code
	}
	return codes
}

// problemPrefix makes a problem type a URI (RFC 9457 section 3.1.1); it is an identifier, not an address.
const problemPrefix = "urn:landfall:problem:"

// Problem is an error of the API as a problem document (RFC 9457). It is what handlers answer, what a Backend may return
// and what the Client returns.
type Problem struct {
	Type   string       `json:"type" doc:"Kind of the problem, from a closed list."`
	Title  string       `json:"title" doc:"The kind in words."`
	Status int          `json:"status" doc:"HTTP status of the answer."`
	Detail string       `json:"detail" doc:"What is wrong here and what to do about it."`
	Errors []FieldError `json:"errors,omitempty" doc:"Each field or parameter that was refused."`
	Known  []string     `json:"known,omitempty" doc:"What would have been accepted: names, paths or fields."`

	headers [][2]string // headers that the status asks for, such as Allow
}

// FieldError is one refused field of a body, or parameter of a query.
type FieldError struct {
	Field  string `json:"field" doc:"Its name, with an index in a list: urls[3]."`
	Detail string `json:"detail" doc:"What is wrong with it."`
}

// Error is the problem in one line: the detail, then each field that was refused.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Detail != "" {
		b.WriteString(p.Detail)
	} else {
		b.WriteString(p.Title)
	}
	for i, e := range p.Errors {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(e.Field + ": " + e.Detail)
	}
	return b.String()
}

func (p *Problem) code() string { return strings.TrimPrefix(p.Type, problemPrefix) }

func (p *Problem) with(name, value string) *Problem {
	p.headers = append(p.headers, [2]string{name, value})
	return p
}

func problem(status int, code, title, detail string) *Problem {
	return &Problem{Type: problemPrefix + code, Title: title, Status: status, Detail: detail}
}

// NotFound says that nothing of this kind ("region", "service", ...) has this name, and names the nearest that exists.
func NotFound(kind, name string, known []string) *Problem {
	known = slices.Compact(slices.Clone(known)) // origins serve several services
	detail := fmt.Sprintf("no %s is called %q%s", kind, clip(name, 80), didYouMean(name, known))
	p := problem(http.StatusNotFound, codeNotFound, "Not found", detail)
	p.Known = clipList(known)
	return p
}

// Refused says that the request is well-formed but must not be done as things stand, such as a drain that would leave
// too little. The detail says what is missing and how to insist.
func Refused(detail string) *Problem {
	return problem(http.StatusConflict, codeRefused, "Refused", detail)
}

// Invalid says that one field or parameter can not be accepted.
func Invalid(field, detail string) *Problem {
	return invalid(FieldError{Field: field, Detail: detail})
}

// Unavailable says that the node can not do this now and a later attempt may succeed.
func Unavailable(detail string) *Problem {
	return problem(http.StatusServiceUnavailable, codeUnavailable, "Unavailable", detail).with("Retry-After", "1")
}

func invalid(fields ...FieldError) *Problem {
	p := problem(http.StatusBadRequest, codeInvalid, "Invalid request", "the request is not valid")
	p.Errors = fields
	return p
}

// asProblem is the problem that answers err.
func asProblem(err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusGatewayTimeout, codeTimeout, "Timed out", "the node did not finish in time: "+err.Error())
	default:
		return problem(http.StatusInternalServerError, codeInternal, "Internal error", err.Error())
	}
}

// maxKnown bounds the names that a problem lists.
const maxKnown = 50

func clipList(names []string) []string {
	names = slices.Sorted(slices.Values(names))
	return names[:min(len(names), maxKnown)]
}

// didYouMean is a half sentence with the name nearest to what was asked for, or empty when none is near.
func didYouMean(name string, known []string) string {
	if len(name) > 256 { // the distance costs the product of both lengths
		return ""
	}
	best, bestDistance := "", 1+(len(name)+2)/3
	for _, k := range known {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(k)); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
