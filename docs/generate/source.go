package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What packages don't export is read from their source: the command tables of SMTP and POP3, the defaults of SMTP, the
// replies, and the metrics.

// parseDir parses the files of a package, tests left out.
func parseDir(dir string) ([]*ast.File, error) {
	fset := token.NewFileSet()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var out []*ast.File
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(fset, f, nil, 0)
		if err != nil {
			return nil, err
		}
		out = append(out, parsed)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no source in %s: %w", dir, fs.ErrNotExist)
	}
	return out, nil
}

// inspect calls fn for every node of type T.
func inspect[T ast.Node](files []*ast.File, fn func(T)) {
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if t, ok := n.(T); ok {
				fn(t)
			}
			return true
		})
	}
}

// fields gives the fields of a keyed composite literal by name.
func fields(lit *ast.CompositeLit) map[string]ast.Expr {
	out := map[string]ast.Expr{}
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if name, ok := kv.Key.(*ast.Ident); ok {
				out[name.Name] = kv.Value
			}
		}
	}
	return out
}

// text is the value of a string literal.
func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// number is the value of an integer literal.
func number(e ast.Expr) (int, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.INT {
		return 0, false
	}
	n, err := strconv.ParseInt(lit.Value, 0, 64)
	return int(n), err == nil
}

// names are all identifiers of an expression, in order.
func names(e ast.Expr) []string {
	var out []string
	if e == nil {
		return nil
	}
	ast.Inspect(e, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			out = append(out, id.Name)
		}
		return true
	})
	return out
}

// row is a row of a command table: the name and the literal's fields.
type row struct {
	name   string
	fields map[string]ast.Expr
}

// rows finds the composite literals with a string under key, in order of the source.
func rows(files []*ast.File, key string) []row {
	var out []row
	inspect(files, func(lit *ast.CompositeLit) {
		f := fields(lit)
		if s, ok := text(f[key]); ok {
			out = append(out, row{s, f})
		}
	})
	return out
}

// constant finds the value of a constant or variable of the package.
func constant(files []*ast.File, name string) ast.Expr {
	var out ast.Expr
	inspect(files, func(v *ast.ValueSpec) {
		for i, n := range v.Names {
			if n.Name == name && i < len(v.Values) {
				out = v.Values[i]
			}
		}
	})
	return out
}

// function finds a function or method by name.
func function(files []*ast.File, name string) *ast.FuncDecl {
	var out *ast.FuncDecl
	inspect(files, func(f *ast.FuncDecl) {
		if f.Name.Name == name {
			out = f
		}
	})
	return out
}

// reply is one code that the server answers with, and the texts that come with it.
type reply struct {
	code     int
	enhanced string
	texts    []string
}

func (r reply) key() string { return strings.TrimSpace(strconv.Itoa(r.code) + " " + r.enhanced) }

// replies collects the calls whose first arguments are a code, an enhanced code and a text.
func replies(files []*ast.File) []reply {
	found := map[string]*reply{}
	inspect(files, func(call *ast.CallExpr) {
		if len(call.Args) < 3 {
			return
		}
		n, ok := number(call.Args[0])
		enhanced, isText := text(call.Args[1])
		if !ok || !isText || n < 200 || n > 599 {
			return
		}
		r := reply{code: n, enhanced: enhanced}
		if known := found[r.key()]; known != nil {
			r = *known
		}
		if s, ok := text(call.Args[2]); ok && s != "%s" && !slices.Contains(r.texts, s) {
			r.texts = append(r.texts, s)
		}
		found[r.key()] = &r
	})
	out := make([]reply, 0, len(found))
	for _, r := range found {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b reply) int {
		return cmp.Or(cmp.Compare(a.code, b.code), cmp.Compare(a.enhanced, b.enhanced))
	})
	return out
}

// callTexts collects the string literals at position arg of calls of fn.
func callTexts(files []*ast.File, fn string, arg int) []string {
	var out []string
	inspect(files, func(call *ast.CallExpr) {
		id, ok := call.Fun.(*ast.Ident)
		if !ok || id.Name != fn || len(call.Args) <= arg {
			return
		}
		if s, ok := text(call.Args[arg]); ok && !slices.Contains(out, s) {
			out = append(out, s)
		}
	})
	return out
}

// limit is a default: a number or a time.
type limit struct {
	name string
	n    int64
	d    time.Duration
}

// defaults reads the pairs {&l.Field, value} of a function that fills in defaults.
func defaults(files []*ast.File, fn string) ([]limit, error) {
	f := function(files, fn)
	if f == nil {
		return nil, fmt.Errorf("no function %s", fn)
	}
	var out []limit
	var errs []error
	ast.Inspect(f, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || len(lit.Elts) != 2 {
			return true
		}
		ref, ok := lit.Elts[0].(*ast.UnaryExpr)
		if !ok || ref.Op != token.AND {
			return true
		}
		field, ok := ref.X.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		v, isTime, err := value(lit.Elts[1])
		errs = append(errs, err)
		l := limit{name: field.Sel.Name, n: v}
		if isTime {
			l.n, l.d = 0, time.Duration(v)
		}
		out = append(out, l)
		return true
	})
	return out, errors.Join(errs...)
}

var units = map[string]time.Duration{"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour, "Millisecond": time.Millisecond}

// value computes a literal, a unit of time, or a product of them.
func value(e ast.Expr) (v int64, isTime bool, err error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		v, err = strconv.ParseInt(e.Value, 0, 64)
		return v, false, err
	case *ast.SelectorExpr:
		if u, ok := units[e.Sel.Name]; ok {
			return int64(u), true, nil
		}
	case *ast.BinaryExpr:
		a, aTime, aErr := value(e.X)
		b, bTime, bErr := value(e.Y)
		switch e.Op {
		case token.MUL:
			return a * b, aTime || bTime, errors.Join(aErr, bErr)
		case token.SHL:
			return a << b, false, errors.Join(aErr, bErr)
		}
	}
	return 0, false, fmt.Errorf("a default of a form that is not understood: %T", e)
}
