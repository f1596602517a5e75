package configs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is the most bytes that a config may have.
const maxFile = 4 << 20

const smallest = `services: {web: {hosts: ["*"], pools: {any: {origins: ["http://127.0.0.1:3000"]}}}}`

// Parse reads a config: it decodes data strictly, fills in ${ENV} by lookup (os.LookupEnv; nil: no variable is set) and the
// defaults, and validates the whole. name is the file's name in error texts. Relative paths in the file are resolved
// against dir; an empty dir leaves them relative to the current folder. The error, if any, is an Errors with every fault
// that could be found. Parse touches no file and is safe for concurrent use.
func Parse(name string, data []byte, dir string, lookup func(string) (string, bool)) (*Config, error) {
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	r := newReport(name)
	doc := r.document(data)
	if doc == nil {
		return nil, r.result()
	}
	d := newDecoder(r, lookup, doc)
	c := d.config(doc)
	validate(c, r)
	if err := r.result(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	c.Hash = hex.EncodeToString(sum[:6])
	c.Dir = dir
	resolvePaths(c, dir)
	return c, nil
}

// Load reads the config file at path, at most 4 MiB; relative paths in it are resolved against its folder. An absent file
// is an error that wraps fs.ErrNotExist, one that can't be read an error that wraps the cause, and a faulty one Errors.
func Load(path string, lookup func(string) (string, bool)) (*Config, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the config %s does not exist; name another file or create it: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("the config %s can't be read: %w", path, err)
	}
	return Parse(path, data, filepath.Dir(path), lookup)
}

// readFile reads one byte more than a config may have, so that Parse refuses what is longer.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("it is a folder; name the file in it")
	}
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// config decodes the document, as far as it can be decoded, and fills in what is absent.
func (d *decoder) config(doc *yaml.Node) *Config {
	c := new(Config)
	v := reflect.ValueOf(c).Elem()
	v.Set(d.shape(v.Type()).blank)
	d.value(doc, v, field{}, "")
	fillFleet(c, d.report)
	for _, s := range c.Services {
		d.fillRoutes(s)
		fillHomes(c, s)
	}
	return c
}

// document is the content of the one YAML document in data, or nil when there is none, which is then reported.
func (r *report) document(data []byte) *yaml.Node {
	if len(data) > maxFile {
		r.add(0, 0, "", fmt.Sprintf("the file is larger than %s", Size(maxFile)))
		return nil
	}
	lines := &lineReader{rest: data}
	dec := yaml.NewDecoder(lines)
	var doc, more yaml.Node
	switch err := decodeNode(dec, &doc); {
	case errors.Is(err, io.EOF):
		r.add(0, 0, "", "the file is empty; the smallest config is "+smallest)
		return nil
	case err != nil:
		r.syntax(data, lines.count, err)
		return nil
	}
	switch err := decodeNode(dec, &more); {
	case err == nil:
		r.add(more.Line, more.Column, "", "a second document begins here; a config is one document, so remove the --- or what follows it")
		return nil
	case !errors.Is(err, io.EOF):
		r.syntax(data, lines.count, err)
		return nil
	}
	root := doc.Content[0]
	switch {
	case isNull(root):
		r.add(0, 0, "", "the file holds only comments; the smallest config is "+smallest)
		return nil
	case root.Kind != yaml.MappingNode:
		r.add(root.Line, root.Column, "", "expected a mapping (key: value), got "+kindName(root)+"; the smallest config is "+smallest)
		return nil
	}
	return root
}

// decodeNode reads the next document. The parser is not ours and reads bytes from outside: should one make it panic, that
// is a fault of the file and not the end of a running node.
func decodeNode(dec *yaml.Decoder, to *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the YAML parser gave up: %v", p)
		}
	}()
	return dec.Decode(to)
}

// lineReader hands out its bytes line by line, so that the line the parser stopped at is known: the one that it names
// itself is often that of the block around.
type lineReader struct {
	rest  []byte
	count int // lines handed out
}

func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	end := bytes.IndexByte(r.rest, '\n') + 1
	if end == 0 {
		end = len(r.rest)
	}
	n := copy(p, r.rest[:end])
	r.rest = r.rest[n:]
	if n == end {
		r.count++
	}
	return n, nil
}

// syntaxHints say what to do about the parser's commonest complaints.
var syntaxHints = [...]struct{ says, hint string }{
	{"mapping values are not allowed", `a value that holds ": " needs quotes, and a key must not be indented deeper than its neighbours`},
	{"did not find expected key", "check the indentation, the quotes and the commas of this line and the one before"},
	{"did not find expected '-' indicator", "every element of a list begins with - at the same indentation"},
	{"did not find expected ',' or", "a [ or { before here is not closed, or a comma is missing"},
	{"did not find expected <document start>", "a config is one document, so remove what follows it"},
	{"unknown anchor", "an alias (*name) needs an anchor (&name) before it; a value that begins with * needs quotes"},
	{"did not find expected alphabetic or numeric character", `a value that begins with * or & needs quotes, such as "*" or "*.example.com"`},
	{"found unexpected end of stream", "a quote is not closed"},
	{"found character that cannot start any token", "a value that begins with @, ` or % needs quotes"},
}

var syntaxPattern = regexp.MustCompile(`^(?:yaml: )?(?:line [0-9]+: )?((?s:.*))$`)

// syntax reports what the parser says of data, having read as far as the line at.
func (r *report) syntax(data []byte, at int, err error) {
	msg := syntaxPattern.FindStringSubmatch(err.Error())[1]
	hint := ""
	for _, h := range syntaxHints {
		if strings.Contains(msg, h.says) {
			hint = "; " + h.hint
			break
		}
	}
	var line []byte
	if lines := bytes.Split(data, []byte("\n")); at >= 1 && at <= len(lines) {
		line = lines[at-1]
	}
	switch {
	case tabbed(line):
		hint = "; indent with spaces, as YAML knows no tabs"
	case bytes.Contains(line, []byte("${")) && strings.Contains(msg, "','"):
		hint = `; inside [ ] and { } a value with ${NAME} needs quotes: "${NAME}"`
	}
	r.add(at, 0, "", "this is not YAML: "+msg+hint)
}

// tabbed tells whether a line is indented with a tab.
func tabbed(line []byte) bool {
	return bytes.ContainsRune(line[:len(line)-len(bytes.TrimLeft(line, " \t"))], '\t')
}

// resolvePaths puts dir before the relative paths that c names.
func resolvePaths(c *Config, dir string) {
	resolve := func(path string) string {
		if path == "" || dir == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	walk(reflect.ValueOf(c), field{}, "", func(v reflect.Value, f field, _ string) {
		if f.path && v.CanSet() {
			v.SetString(resolve(v.String()))
		}
	})
	for _, s := range c.Services {
		for region, pool := range s.Pools { // what is in a map can't be set there
			pool.File = resolve(pool.File)
			s.Pools[region] = pool
		}
	}
	if log := &c.Observe.AccessLog.Path; !slices.Contains([]string{"stdout", "stderr", "off"}, *log) {
		*log = resolve(*log)
	}
}
