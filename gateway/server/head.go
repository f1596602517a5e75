package server

import (
	"bytes"
	"net/http"
	"net/netip"
	"strings"
)

// maxLeadingLines is how many empty lines may come before a request line (RFC 9112 section 2.2 asks for at least one).
const maxLeadingLines = 4

// bodyKind is how a request's body is delimited (RFC 9112 section 6.3).
type bodyKind uint8

const (
	bodyNone bodyKind = iota
	bodyFixed
	bodyChunked
)

// head is what the framing filter needs to know of a request's head.
type head struct {
	body   bodyKind
	length int64 // of a bodyFixed
}

// headScanner finds the end of a head in bytes that arrive in pieces. It looks at every byte once.
type headScanner struct {
	start   int // where the request line begins, past leading empty lines
	scanned int // offset of the first line that was not judged
	lines   int
	leading int
}

// next looks for the end of the head in b, which must begin with the same bytes as at the last call. It returns the
// offset behind the head's final empty line, or 0 when more bytes are needed. maxBytes bounds the head, maxFields the
// number of its field lines.
func (s *headScanner) next(b []byte, maxBytes, maxFields int) (end int, no *refusal) {
	for {
		i := bytes.IndexByte(b[s.scanned:], '\n')
		if i < 0 {
			if len(b)-s.start > maxBytes {
				return 0, refuseHeadTooLarge
			}
			return 0, nil
		}
		i += s.scanned
		if i == s.scanned || b[i-1] != '\r' {
			return 0, refuseBareLF
		}
		empty := i-1 == s.scanned
		s.scanned = i + 1
		switch {
		case s.scanned-s.start > maxBytes:
			return 0, refuseHeadTooLarge
		case !empty:
			s.lines++
			if s.lines-1 > maxFields {
				return 0, refuseTooManyFields
			}
		case s.lines > 0:
			return s.scanned, nil
		default:
			s.leading++
			if s.leading > maxLeadingLines {
				return 0, refuseRequestLine
			}
			s.start = s.scanned
		}
	}
}

// parseHead judges a whole head, from the request line to the final empty line, by RFC 9112 and RFC 9110 section 5.
// Where those leave a recipient a choice, it refuses: whatever it accepts, every parser reads in the same way.
func parseHead(b []byte) (head, *refusal) {
	line, rest := cutLine(b)
	rl, no := parseRequestLine(line)
	if no != nil {
		return head{}, no
	}
	var f framingFields
	for len(rest) > 2 {
		line, rest = cutLine(rest)
		if no := f.add(line); no != nil {
			return head{}, no
		}
	}
	return f.finish(rl)
}

// cutLine splits b behind its first CRLF; the line is returned without it.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 {
		return b, nil
	}
	return b[:i-1], b[i+1:]
}

type requestLine struct {
	method, target []byte
	minor          byte // of HTTP/1.x: '0' or '1'
}

func parseRequestLine(line []byte) (requestLine, *refusal) {
	i := bytes.IndexByte(line, ' ')
	j := bytes.LastIndexByte(line, ' ')
	if i <= 0 || i == j {
		return requestLine{}, refuseRequestLine
	}
	method, target, version := line[:i], line[i+1:j], line[j+1:]
	if len(method) > 64 || !isToken(method) || !validTarget(target) {
		return requestLine{}, refuseRequestLine
	}
	if len(version) != 8 || string(version[:5]) != "HTTP/" || version[6] != '.' || !isDigit(version[5]) || !isDigit(version[7]) {
		return requestLine{}, refuseRequestLine
	}
	if version[5] != '1' || version[7] > '1' {
		return requestLine{}, refuseVersion
	}
	rl := requestLine{method: method, target: target, minor: version[7]}
	switch {
	case string(method) == http.MethodConnect:
		return rl, refuseMethod
	case target[0] == '/', string(target) == "*" && string(method) == http.MethodOptions:
	case len(absoluteAuthority(target)) > 0:
	default:
		return rl, refuseTarget
	}
	return rl, nil
}

// absoluteAuthority is the authority of a target in absolute form (RFC 9112 section 3.2.2), else empty.
func absoluteAuthority(target []byte) []byte {
	scheme, rest, ok := bytes.Cut(target, []byte("://"))
	if !ok || !equalFold(scheme, "http") && !equalFold(scheme, "https") {
		return nil
	}
	if j := bytes.IndexAny(rest, "/?"); j >= 0 {
		rest = rest[:j]
	}
	return rest
}

// framingFields gathers from a head's fields what decides about its framing and its host.
type framingFields struct {
	hosts, lengths, codings int
	host                    []byte
	length                  int64
	chunked                 bool
}

func (f *framingFields) add(line []byte) *refusal {
	if line[0] == ' ' || line[0] == '\t' {
		return refuseFolding // obsolete line folding, RFC 9112 section 5.2
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !isToken(line[:colon]) {
		return refuseField // no whitespace before the colon either, RFC 9112 section 5.1
	}
	name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
	if !validValue(value) {
		return refuseField
	}
	switch len(name) {
	case len("Host"):
		if equalFold(name, "host") {
			f.hosts++
			f.host = value
		}
	case len("Content-Length"):
		if equalFold(name, "content-length") {
			f.lengths++
			n, ok := parseLength(value)
			if !ok {
				return refuseLength
			}
			f.length = n
		}
	case len("Transfer-Encoding"):
		if equalFold(name, "transfer-encoding") {
			f.codings++
			f.chunked = equalFold(value, "chunked")
		}
	}
	return nil
}

func (f *framingFields) finish(rl requestLine) (head, *refusal) {
	switch {
	case f.hosts == 0 || len(f.host) == 0:
		return head{}, refuseNoHost
	case f.hosts > 1, !validHost(f.host):
		return head{}, refuseHost
	case f.codings > 0 && f.lengths > 0, f.codings > 1, f.codings > 0 && rl.minor == '0':
		return head{}, refuseFraming // RFC 9112 section 6.1
	case f.lengths > 1:
		return head{}, refuseLength // even when they agree: RFC 9110 section 8.6 allows to refuse
	case f.codings > 0 && !f.chunked:
		return head{}, refuseCoding
	}
	if rl.target[0] != '/' && rl.target[0] != '*' && !bytes.EqualFold(absoluteAuthority(rl.target), f.host) {
		return head{}, refuseHost
	}
	switch {
	case f.chunked:
		return head{body: bodyChunked}, nil
	case f.length > 0:
		return head{body: bodyFixed, length: f.length}, nil
	}
	return head{}, nil
}

// parseLength reads a Content-Length: digits only, below 10^18.
func parseLength(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// validTarget tells whether a request target holds no whitespace, control character or fragment. Bytes above 0x7f are
// let through: they are not legal, but clients send them and nobody reads them as anything but path.
func validTarget[T string | []byte](t T) bool {
	if len(t) == 0 {
		return false
	}
	for i := 0; i < len(t); i++ {
		if c := t[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// validValue tells whether a field value holds no control character but the tab (RFC 9110 section 5.5).
func validValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// validHost tells whether h is a host with an optional port and nothing else: a name of letters, digits, '-', '.', '_'
// and '~', an IPv4 address, or an IPv6 address in brackets without a zone.
func validHost[T string | []byte](h T) bool {
	if len(h) == 0 || len(h) > 261 { // 255 for a name, ":65535"
		return false
	}
	name := len(h) // where the port begins
	for i := 0; i < len(h); i++ {
		if h[i] == ']' || h[i] == ':' && h[0] != '[' {
			name = i
			break
		}
	}
	if h[0] == '[' {
		if name == len(h) {
			return false
		}
		ip, err := netip.ParseAddr(string(h[1:name]))
		name++
		return err == nil && ip.Is6() && ip.Zone() == "" && validPort(h[name:])
	}
	return validName(h[:name]) && validPort(h[name:])
}

// validName tells whether n is made of labels, none of them empty but a last one.
func validName[T string | []byte](n T) bool {
	label := 0
	for i := 0; i < len(n); i++ {
		switch c := n[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
		case isAlnum(c), c == '-', c == '_', c == '~':
			label++
		default:
			return false
		}
	}
	return len(n) > 0
}

// validPort tells whether p is empty or a colon and a number up to 65535.
func validPort[T string | []byte](p T) bool {
	if len(p) == 0 {
		return true
	}
	if p[0] != ':' || len(p) == 1 || len(p) > 6 {
		return false
	}
	n := 0
	for i := 1; i < len(p); i++ {
		if !isDigit(p[i]) {
			return false
		}
		n = n*10 + int(p[i]-'0')
	}
	return n <= 65535
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlnum(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' }

// isTokenByte tells whether c may stand in a token (RFC 9110 section 5.6.2).
func isTokenByte(c byte) bool {
	return isAlnum(c) || c > ' ' && c < 0x7f && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !isTokenByte(c) {
			return false
		}
	}
	return len(b) > 0
}

// equalFold compares b with a lower-case ASCII string.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
