package configs

import (
	"encoding/base64"
	"errors"
	"strings"
)

// WebhookSecret is the key that a webhook's secret stands for: the bytes behind whsec_ in base64, or the text itself.
func WebhookSecret(s string) ([]byte, error) {
	key := []byte(s)
	if rest, ok := strings.CutPrefix(s, "whsec_"); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(rest); err != nil {
			return nil, errors.New("what follows whsec_ is not base64")
		}
	}
	if len(key) < 16 {
		return nil, errors.New("the secret is shorter than 16 bytes: make one with openssl rand -base64 32")
	}
	return key, nil
}
