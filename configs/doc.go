// Package configs is the config language of a Landfall fleet: the types, their strict decoding from YAML, the defaults,
// the validation that reports every error at once with line and column, the JSON Schema, and the example files.
//
// It is the lowest floor: it imports nothing of Landfall, does no I/O but reading the files that a config names, and
// knows nothing of how its values are used. Every other package may import it.
//
// The struct tags are the single source of each key's facts. `yaml` names it, `doc` describes it (schema and reference),
// `default` is what an absent key means, `min` and `max` bound it, `enum` lists what a string may be.
package configs
