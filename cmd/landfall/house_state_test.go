package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"testing"
)

// A package-level variable is allowed where it can't hide state: an error, a compiled pattern or template, embedded
// files, a table, a string that the linker sets, an assertion that a type implements an interface. And nothing may ever
// write to it: then it is a constant that Go has no syntax for.

func TestNoHiddenState(t *testing.T) {
	fset, all := sources(t)
	vars := map[string]map[string]bool{} // of each package
	for _, s := range all {
		if s.test {
			continue
		}
		for _, spec := range packageVars(s.file) {
			for i, name := range spec.Names {
				if name.Name == "_" {
					continue
				}
				if vars[s.pkg()] == nil {
					vars[s.pkg()] = map[string]bool{}
				}
				vars[s.pkg()][name.Name] = true
				if !constantLike(s.file, spec, i) {
					t.Errorf("%s: var %s: package-level state: make it a field that a constructor sets (allowed are errors, regexps, templates, embedded files and tables that nobody writes to)",
						fset.Position(name.Pos()), name.Name)
				}
			}
		}
	}
	for _, s := range all {
		if s.test {
			continue
		}
		for _, at := range writes(s, vars) {
			t.Errorf("%s: a write to a package-level variable: make it a field that a constructor sets", fset.Position(at))
		}
	}
}

func packageVars(f *ast.File) []*ast.ValueSpec {
	var out []*ast.ValueSpec
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
			for _, spec := range g.Specs {
				out = append(out, spec.(*ast.ValueSpec))
			}
		}
	}
	return out
}

// constantLike tells whether the variable i of a declaration is of a kind that can't hide state.
func constantLike(f *ast.File, spec *ast.ValueSpec, i int) bool {
	if i >= len(spec.Values) {
		embed, ok := importName(f, "embed")
		return ok && isSelector(spec.Type, embed, "FS")
	}
	value := spec.Values[i]
	if u, ok := value.(*ast.UnaryExpr); ok && u.Op == token.AND {
		value = u.X
	}
	switch v := value.(type) {
	case *ast.BasicLit:
		return true
	case *ast.CompositeLit:
		_, foreign := v.Type.(*ast.SelectorExpr) // such as sync.Pool{}
		return !foreign
	case *ast.SelectorExpr: // another package's error, under a name of ours
		return true
	case *ast.BinaryExpr: // of strings
		return true
	case *ast.CallExpr:
		for _, maker := range []struct{ pkg, name string }{
			{"errors", "New"}, {"fmt", "Errorf"}, {"regexp", "MustCompile"}, {"html/template", "Must"}, {"text/template", "Must"},
		} {
			if pkg, ok := importName(f, maker.pkg); ok && isSelector(v.Fun, pkg, maker.name) {
				return true
			}
		}
	}
	return false
}

// writes finds the places in a file that write to a package-level variable of its own package or of another of ours.
func writes(s source, vars map[string]map[string]bool) []token.Pos {
	imported := map[string]string{} // name in this file → import path
	for _, i := range s.file.Imports {
		p := i.Path.Value[1 : len(i.Path.Value)-1]
		if name, ok := importName(s.file, p); ok && vars[p] != nil {
			imported[name] = p
		}
	}
	top := packageVars(s.file)
	var isVar func(e ast.Expr) bool // x in x.f[i].g
	isVar = func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.Ident:
			if !vars[s.pkg()][e.Name] {
				return false
			}
			if e.Obj == nil {
				return true // the parser resolves what a file declares itself; what it leaves open is the package's
			}
			spec, ok := e.Obj.Decl.(*ast.ValueSpec)
			return ok && slices.Contains(top, spec)
		case *ast.SelectorExpr:
			if id, ok := e.X.(*ast.Ident); ok && id.Obj == nil && imported[id.Name] != "" {
				return vars[imported[id.Name]][e.Sel.Name]
			}
			return isVar(e.X)
		case *ast.IndexExpr:
			return isVar(e.X)
		case *ast.SliceExpr:
			return isVar(e.X)
		case *ast.StarExpr:
			return isVar(e.X)
		case *ast.ParenExpr:
			return isVar(e.X)
		}
		return false
	}
	var out []token.Pos
	ast.Inspect(s.file, func(n ast.Node) bool {
		var targets []ast.Expr
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				targets = n.Lhs
			}
		case *ast.IncDecStmt:
			targets = []ast.Expr{n.X}
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				targets = []ast.Expr{n.Key, n.Value}
			}
		case *ast.UnaryExpr:
			if _, literal := n.X.(*ast.CompositeLit); n.Op == token.AND && !literal {
				targets = []ast.Expr{n.X} // whoever holds the address may write
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && slices.Contains([]string{"delete", "clear", "append", "copy"}, f.Name) {
				targets = n.Args[:1]
			}
		}
		for _, e := range targets {
			if isVar(e) {
				out = append(out, n.Pos())
			}
		}
		return true
	})
	return out
}

// processWide are names of libraries that stand for state of the whole process, with what to use instead.
var processWide = map[string]struct {
	names   []string
	instead string
}{
	"log": {[]string{"Default", "Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Print", "Printf", "Println", "SetFlags", "SetOutput"},
		"take a *slog.Logger from the caller"},
	"log/slog": {[]string{"Debug", "Info", "Warn", "Error", "Default", "SetDefault", "DebugContext", "InfoContext", "WarnContext", "ErrorContext"},
		"take a *slog.Logger from the caller"},
	"net/http": {[]string{"DefaultClient", "DefaultServeMux", "DefaultTransport", "Get", "Head", "Post", "PostForm", "Handle", "HandleFunc", "ListenAndServe", "ListenAndServeTLS"},
		"make a client, a mux or a server with bounds of its own"},
	"github.com/prometheus/client_golang/prometheus": {[]string{"DefaultRegisterer", "DefaultGatherer", "MustRegister", "Register"},
		"take a prometheus.Registerer from the caller"},
	"github.com/prometheus/client_golang/prometheus/promauto": {[]string{"NewCounter", "NewCounterVec", "NewGauge", "NewGaugeVec", "NewHistogram", "NewHistogramVec"},
		"use promauto.With(registerer)"},
	"os/signal": {[]string{"Ignore", "Reset"}, "only cmd/landfall listens to signals"},
}

func TestNothingIsProcessWide(t *testing.T) {
	fset, all := sources(t)
	for _, s := range all {
		if s.test {
			continue
		}
		for lib, rule := range processWide {
			name, ok := importName(s.file, lib)
			if !ok {
				continue
			}
			ast.Inspect(s.file, func(n ast.Node) bool {
				for _, f := range rule.names {
					if isSelector(n, name, f) {
						t.Errorf("%s: %s.%s: %s", fset.Position(n.Pos()), name, f, rule.instead)
					}
				}
				return true
			})
		}
	}
}

// TestRuleOnStateFindsIt plants what the rule is against.
func TestRuleOnStateFindsIt(t *testing.T) {
	const text = `package planted

import ("errors"; "sync"; "embed"; "landfall/other")

var errPlain = errors.New("fine")
var table = [...]string{"a", "b"}
var byName = map[string]int{"a": 1}
var single = &thing{}
var files embed.FS
var _ interface{} = single

var lock sync.Mutex     // state
var once = sync.Once{}  // state
var counter int         // state
var made = build()      // state

func (t *thing) reads() {
	table := table // a local copy
	table[0] = "local"
	byName := 3
	byName++
	_ = byName
	for i, x := range single.xs { _, _ = i, x }
}

func (t *thing) writes() {
	table[0] = "x"
	byName["a"]++
	delete(byName, "a")
	single.xs = nil
	_ = &table[1]
	_ = append(single.xs, 1)
	for byName["b"] = range 3 {}
	other.Limit = 3
	errPlain = nil
}
`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "planted.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	state := map[string]bool{}
	own := map[string]bool{}
	for _, spec := range packageVars(f) {
		for i, n := range spec.Names {
			if n.Name == "_" {
				continue
			}
			own[n.Name] = true
			if !constantLike(f, spec, i) {
				state[n.Name] = true
			}
		}
	}
	if want := map[string]bool{"lock": true, "once": true, "counter": true, "made": true}; !maps.Equal(state, want) {
		t.Errorf("state found: %v, want %v", state, want)
	}
	var lines []int
	for _, at := range writes(source{dir: "planted", file: f}, map[string]map[string]bool{"landfall/planted": own, "landfall/other": {"Limit": true}}) {
		lines = append(lines, fset.Position(at).Line)
	}
	if want := []int{27, 28, 29, 30, 31, 32, 33, 34, 35}; !slices.Equal(lines, want) {
		t.Errorf("writes found in lines %v, want %v", lines, want)
	}
}
