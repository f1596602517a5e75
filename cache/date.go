package cache

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

var errDate = errors.New("not a date in GMT")

// parseDate reads a date in any of the three forms of RFC 9110 section 5.6.7, whatever the letters' case. Another zone than
// GMT is none, as RFC 9111 section 4.2 has it.
func parseDate(s string) (time.Time, error) {
	s = strings.Trim(s, " \t")
	if at, err := time.Parse(time.ANSIC, s); err == nil {
		return at, nil
	}
	if n := len(s) - len("GMT"); n > 0 && strings.EqualFold(s[n:], "GMT") {
		return http.ParseTime(s[:n] + "GMT")
	}
	return time.Time{}, errDate
}
