// Package configs is the config language of a Landfall fleet: the types, their strict decoding from YAML, the defaults,
// the validation that reports every error at once with line and column, the JSON Schema, and the example files.
//
// It is the lowest floor: it imports nothing of Landfall, does no I/O but Load's reading of the one file, and knows nothing
// of how its values are used: that a file which a config names exists is for whoever opens it to find out. Every other
// package may import it.
//
// Parse takes a file through four steps, each a function of its own: the YAML parser gives nodes, the decoder fills the
// types from them (defaults first, then what is written, with ${ENV} filled in), the defaults between keys follow, and
// validation checks bounds by tag and the rules between keys. All four report into one list with the place of each fault.
//
// The struct tags are the single source of each key's facts. `yaml` names it, `doc` describes it (schema and reference),
// `default` is what an absent key means, `min` and `max` bound it, `enum` lists what a string may be.
package configs
