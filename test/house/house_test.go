// Package house holds the rules of the house as tests: imports go down the floors only, every package says what it
// is, and every dependency is written down with its reason.
package house

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "waxwing"

// floors lists the packages from the top of the house to the ground. A package may import its own floor and those
// below it, never one above. A package that stands in no floor fails the test: say where it lives.
var floors = [][]string{
	{"cmd/waxwing", "bench/...", "docs/...", "test/..."},
	{"internal/server"},
	{"internal/control/...", "internal/transfer", "internal/doctor"},
	{"internal/smtpserver", "internal/imapserver", "internal/pop3server", "internal/sieveserver"},
	{"internal/intake", "internal/milter", "internal/routing", "internal/queue", "internal/transport/..."},
	{"internal/directory/...", "internal/auth", "internal/guard/...", "internal/dialogtest"},
	{"internal/bounce", "internal/digest", "internal/message/...", "internal/sieve", "internal/smtp", "internal/srs", "internal/mailrule", "internal/dane", "internal/mtasts", "internal/tlspolicy", "internal/tlsrpt"},
	{"internal/backup"},
	{"internal/store/...", "internal/mailfile", "internal/trace"},
	{"internal/wire", "internal/cache", "internal/dns/...", "internal/durable/...", "internal/sqlitefile/...", "internal/config/...", "internal/telemetry", "internal/address", "internal/certs", "internal/listen", "internal/porttest", "internal/build"},
}

type listed struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json", module+"/...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// floor numbers the floors from the top, 0; -1 when the package stands nowhere.
func floor(path string) int {
	path = strings.TrimPrefix(path, module+"/")
	for i, names := range floors {
		for _, name := range names {
			base, deep := strings.CutSuffix(name, "/...")
			if path == base || deep && strings.HasPrefix(path, base+"/") {
				return i
			}
		}
	}
	return -1
}

func TestImportsGoDownTheFloors(t *testing.T) {
	for _, p := range packages(t) {
		here := floor(p.ImportPath)
		if here < 0 {
			t.Errorf("%s stands on no floor: add it to the list in this test and to ARCHITECTURE.md", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, module+"/") && floor(imp) < here {
				t.Errorf("%s imports %s, which is a floor above it", p.ImportPath, imp)
			}
		}
	}
}

func TestFacesDoNotKnowEachOther(t *testing.T) {
	for _, p := range packages(t) {
		if floor(p.ImportPath) != floor(module+"/internal/smtpserver") {
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, module+"/") && floor(imp) == floor(p.ImportPath) {
				t.Errorf("%s imports %s: one protocol's server must not know another's", p.ImportPath, imp)
			}
		}
	}
}

func TestMailFloorDoesNoInputOrOutput(t *testing.T) {
	forbidden := map[string]bool{"os": true, "net": true, "net/http": true, "database/sql": true, "os/exec": true}
	for _, p := range packages(t) {
		if floor(p.ImportPath) != floor(module+"/internal/message") {
			continue
		}
		for _, imp := range p.Imports {
			if forbidden[imp] {
				t.Errorf("%s imports %q, but the mail floor holds pure functions over bytes", p.ImportPath, imp)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		files := p.GoFiles
		if len(files) == 0 {
			files = append(p.TestGoFiles, p.XTestGoFiles...)
		}
		if doc := packageComment(t, p.Dir, files); len(doc) < 60 {
			t.Errorf("%s: the package comment is missing or says too little: %q", p.ImportPath, doc)
		}
	}
}

func packageComment(t *testing.T, dir string, files []string) string {
	t.Helper()
	longest := ""
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if f.Doc != nil && len(f.Doc.Text()) > len(longest) {
			longest = f.Doc.Text()
		}
	}
	return longest
}

// TestDependenciesAreWrittenDown compares go.mod's direct requirements with DEPENDENCIES.md, both ways.
func TestDependenciesAreWrittenDown(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root(t), "DEPENDENCIES.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mod), "\n") {
		path, version, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "require ")), " v")
		if !ok || !strings.Contains(path, ".") || strings.Contains(version, "// indirect") {
			continue
		}
		if !strings.Contains(string(page), "`"+path+"`") {
			t.Errorf("DEPENDENCIES.md does not say why %s is needed", path)
		}
	}
	for _, line := range strings.Split(string(page), "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		path := strings.Split(line, "`")[1]
		if !strings.Contains(string(mod), path+" v") {
			t.Errorf("DEPENDENCIES.md lists %s, which go.mod does not require", path)
		}
	}
}
