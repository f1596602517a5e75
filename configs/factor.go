package configs

import (
	"fmt"
	"strconv"
	"strings"
)

// Factor is a number of times. In YAML: 1.5x. Range 0 to 1000.
type Factor float64

const factorForms = "a number of times such as 1.5x or 2x"

// UnmarshalText reads 1.5x.
func (f *Factor) UnmarshalText(text []byte) error {
	s := string(text)
	number, ok := strings.CutSuffix(s, "x")
	if !decimalPattern.MatchString(number) || !ok {
		return fmt.Errorf("%q is not a factor: write %s", s, factorForms)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n > 1000 {
		return fmt.Errorf("%q is not from 0x to 1000x", s)
	}
	*f = Factor(n)
	return nil
}

// String is the factor as in YAML.
func (f Factor) String() string { return strconv.FormatFloat(float64(f), 'f', -1, 64) + "x" }

// MarshalText is String.
func (f Factor) MarshalText() ([]byte, error) { return []byte(f.String()), nil }
