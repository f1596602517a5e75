package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The house rules are tests, so that no rule can rot: those about source files are in this file and in
// house_state_test.go, those about imports in house_imports_test.go, those about documents in house_docs_test.go.
// gateway/metrics_doc_test.go holds those about metrics. Each failure names the file and says what to do.

// repoRoot is the module's root, as a test of this package sees it.
const repoRoot = "../.."

// modulePath is the module's name in imports.
const modulePath = "landfall"

// source is a Go file of the tree.
type source struct {
	path  string // from the root, with slashes
	dir   string
	test  bool
	text  []byte
	lines int
	file  *ast.File
}

// pkg is the import path of the source's package.
func (s source) pkg() string { return strings.TrimSuffix(modulePath+"/"+s.dir, "/.") }

// tree is every file that belongs to the repository, as text, by its path from the root.
func tree(t *testing.T, match func(path string) bool) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	root := os.DirFS(repoRoot)
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", ".worktrees", "dist"}, p):
			return fs.SkipDir
		case !d.Type().IsRegular() || !match(p):
			return nil
		}
		out[p], err = fs.ReadFile(root, p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sources parses every Go file of the tree, in the order of their paths, once for all tests. They must not change it.
func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	parsed.once.Do(func() { parsed.fset, parsed.all = parse(t) })
	if len(parsed.all) < 100 {
		t.Fatalf("found %d Go files under %s: the rules look at the wrong folder, or an earlier test could not parse them", len(parsed.all), repoRoot)
	}
	return parsed.fset, parsed.all
}

var parsed struct {
	once sync.Once
	fset *token.FileSet
	all  []source
}

func parse(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	fset := token.NewFileSet()
	var out []source
	for p, text := range tree(t, func(p string) bool { return path.Ext(p) == ".go" && !strings.Contains(p, "testdata/") }) {
		f, err := parser.ParseFile(fset, p, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, source{path: p, dir: path.Dir(p), test: strings.HasSuffix(p, "_test.go"), text: text, lines: bytes.Count(text, []byte("\n")), file: f})
	}
	slices.SortFunc(out, func(a, b source) int { return strings.Compare(a.path, b.path) })
	return fset, out
}

// Bounds on size. A file or a function that outgrows them holds more than one idea.
const (
	maxFileLines     = 500
	maxFunctionLines = 100 // aim at 70
)

func TestFilesAreShort(t *testing.T) {
	_, all := sources(t)
	for _, s := range all {
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: split it by idea (a phase, a state, a mechanism)", s.path, s.lines, maxFileLines)
		}
	}
}

func TestFunctionsAreShort(t *testing.T) {
	fset, all := sources(t)
	for _, s := range all {
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			first, last := fset.Position(f.Pos()), fset.Position(f.End())
			if n := last.Line - first.Line + 1; n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, more than %d: split it by phase, one return value leading to the next", first, f.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

// TestPackagesTellTheirJob holds that each package has one comment that begins as Go's tools want it.
func TestPackagesTellTheirJob(t *testing.T) {
	_, all := sources(t)
	comments := map[string][]string{}
	for _, s := range all {
		if s.test {
			continue
		}
		if _, seen := comments[s.dir]; !seen {
			comments[s.dir] = nil
		}
		if s.file.Doc == nil {
			continue
		}
		comments[s.dir] = append(comments[s.dir], s.path)
		begin := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			begin = "Command " + path.Base(s.dir) + " "
		}
		if !strings.HasPrefix(s.file.Doc.Text(), begin) {
			t.Errorf("%s: the package comment must begin with %q and say the package's one job", s.path, begin)
		}
	}
	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("%s has %d package comments %v, want one: say its job and its neighbours in doc.go", dir, len(files), files)
		}
	}
}

// TestNoInit holds that nothing happens by itself when a package is loaded.
func TestNoInit(t *testing.T) {
	fset, all := sources(t)
	for _, s := range all {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: func init: do it in a constructor that someone calls", fset.Position(f.Pos()))
			}
		}
	}
}

// TestNoSleepInTests holds that no test waits and hopes.
func TestNoSleepInTests(t *testing.T) {
	fset, all := sources(t)
	for _, s := range all {
		timeName, imported := importName(s.file, "time")
		if !s.test || !imported {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if isSelector(n, timeName, "Sleep") {
				t.Errorf("%s: time.Sleep in a test: poll a condition, wait on a channel, or use testing/synctest", fset.Position(n.Pos()))
			}
			return true
		})
	}
}

// importName is the name by which a file knows an import.
func importName(f *ast.File, importPath string) (string, bool) {
	for _, i := range f.Imports {
		if strings.Trim(i.Path.Value, `"`) != importPath {
			continue
		}
		if i.Name != nil {
			return i.Name.Name, true
		}
		return path.Base(strings.TrimSuffix(importPath, "/v2")), true
	}
	return "", false
}

// isSelector tells whether n is x.name for a package x.
func isSelector(n ast.Node, x, name string) bool {
	s, ok := n.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	id, ok := s.X.(*ast.Ident)
	return ok && id.Name == x
}

// ownText is what people wrote here, as opposed to data, licences and generated sums.
func ownText(p string) bool {
	switch path.Ext(p) {
	case ".go", ".md", ".yaml", ".yml", ".service", ".sh", ".json", ".toml":
		return !strings.Contains(p, "testdata/")
	}
	return strings.HasPrefix(p, ".ci/") || path.Base(p) == "Containerfile"
}

// TestNothingIsLeftToDo holds that unfinished work is not hidden in a comment.
func TestNothingIsLeftToDo(t *testing.T) {
	word := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX|HA` + `CK)\b`)
	for p, text := range tree(t, ownText) {
		for i, line := range strings.Split(string(text), "\n") {
			if word.MatchString(line) {
				t.Errorf("%s:%d: %s: finish it, or write it down among the limits in README.md", p, i+1, strings.TrimSpace(line))
			}
		}
	}
}

// TestNothingNamesThisMachine holds that no file depends on where it was written: no home folders, no mirrors.
func TestNothingNamesThisMachine(t *testing.T) {
	patterns := map[string]*regexp.Regexp{
		"a path of somebody's machine": regexp.MustCompile(`(^|[^\w.])/(home|Users|root|work)/\w`),
		"a package registry or mirror": regexp.MustCompile(`(?i)\b(goproxy|gosumdb)=|artifactory|[./]nexus[./]|\b(proxy|sum)\.golang\.org|\b(ghcr|quay)\.io|\bdocker\.io|\bregistry\.[a-z.-]+\.(com|io|net|org)\b`),
	}
	for p, text := range tree(t, ownText) {
		if path.Base(p) == "house_test.go" {
			continue // the patterns themselves
		}
		for i, line := range strings.Split(string(text), "\n") {
			for what, pattern := range patterns {
				if m := pattern.FindString(line); m != "" {
					t.Errorf("%s:%d: %q looks like %s: leave it out, or make it a setting", p, i+1, strings.TrimSpace(m), what)
				}
			}
		}
	}
}
