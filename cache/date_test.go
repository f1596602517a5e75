package cache

import (
	"net/http"
	"testing"
	"time"
)

func TestDates(t *testing.T) {
	want := time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC)
	for _, s := range []string{
		"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", " sun, 06 nov 1994 08:49:37 gmt ",
	} {
		if at, err := parseDate(s); err != nil || !at.Equal(want) {
			t.Errorf("%q is %v %v", s, at, err)
		}
	}
	for _, s := range []string{
		"", "0", "-1", "GMT", "Sunday, 06-Nov-94 08:49:37 EST", "Sun, 06 Nov 1994 08:49:37 +0100", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 32 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z",
	} {
		if at, err := parseDate(s); err == nil {
			t.Errorf("%q is %v", s, at)
		}
	}
}

// FuzzDate: what is taken for a date is one, which reads the same in the form that is sent.
func FuzzDate(f *testing.F) {
	f.Add("Sun, 06 Nov 1994 08:49:37 GMT")
	f.Add("Sunday, 06-Nov-94 08:49:37 gmt")
	f.Add("Sun Nov  6 08:49:37 1994")
	f.Fuzz(func(t *testing.T, s string) {
		at, err := parseDate(s)
		if err != nil {
			return
		}
		again, err := parseDate(at.UTC().Format(http.TimeFormat))
		if err != nil || !again.Equal(at.Truncate(time.Second)) {
			t.Fatalf("%q is %v, then %v %v", s, at, again, err)
		}
	})
}
