package configs

import "embed"

// Examples holds complete configs to start from, as examples/NAME.yaml. A test holds that each is valid.
//
//go:embed examples/*.yaml
var Examples embed.FS
