// Package docs_test holds the documentation to what there is: every page in both languages with the same headings and
// commands, every link to a file and heading that exists, every command and option in the program, every key of the
// configuration and every line of the installation.
package docs_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"
)

// page is one Markdown file; its name is relative to the root of the repository.
type page struct {
	name string
	text string
}

// read reads a file below the root of the repository.
func read(t *testing.T, name string) page {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return page{name, string(b)}
}

// allPages are the pages of the root and of this folder.
func allPages(t *testing.T) []page {
	t.Helper()
	var out []page
	root, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range root {
		out = append(out, read(t, filepath.Base(f)))
	}
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".md" {
			out = append(out, read(t, "docs/"+filepath.ToSlash(path)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 40 {
		t.Fatalf("only %d pages were found", len(out))
	}
	return out
}

// pairs are the English pages with their Chinese names.
func pairs(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{"README.md": "README.zh-CN.md"}
	for _, p := range allPages(t) {
		if rest, ok := strings.CutPrefix(p.name, "docs/"); ok && !strings.HasPrefix(rest, "zh/") {
			out[p.name] = "docs/zh/" + rest
		}
	}
	return out
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// prose is a page without its fenced blocks.
func (p page) prose() string { return fence.ReplaceAllString(p.text, "") }

// headings gives level and text of each heading.
func (p page) headings() [][2]string {
	var out [][2]string
	for line := range strings.SplitSeq(p.prose(), "\n") {
		marks := len(line) - len(strings.TrimLeft(line, "#"))
		if marks > 0 && strings.HasPrefix(line[marks:], " ") {
			out = append(out, [2]string{line[:marks], strings.TrimSpace(line[marks:])})
		}
	}
	return out
}

func TestEachPageIsThereInBothLanguages(t *testing.T) {
	t.Parallel()
	for en, zh := range pairs(t) {
		if _, err := os.Stat(filepath.Join("..", zh)); err != nil {
			t.Errorf("%s has no Chinese page: %v", en, err)
			continue
		}
		a, b := read(t, en), read(t, zh)
		var levelsA, levelsB []string
		for _, h := range a.headings() {
			levelsA = append(levelsA, h[0])
		}
		for _, h := range b.headings() {
			levelsB = append(levelsB, h[0])
		}
		if !slices.Equal(levelsA, levelsB) {
			t.Errorf("headings of %s are %v, those of %s %v", en, levelsA, zh, levelsB)
		}
		if blocksA, blocksB := fence.FindAllString(a.text, -1), fence.FindAllString(b.text, -1); !slices.Equal(blocksA, blocksB) {
			t.Errorf("%s and %s don't show the same commands and files", en, zh)
		}
		if n, m := strings.Count(a.prose(), "\n|"), strings.Count(b.prose(), "\n|"); n != m {
			t.Errorf("tables of %s have %d lines, those of %s %d", en, n, zh, m)
		}
	}
	for _, p := range allPages(t) {
		if rest, ok := strings.CutPrefix(p.name, "docs/zh/"); ok {
			if _, err := os.Stat(filepath.FromSlash(rest)); err != nil {
				t.Errorf("%s has no English page: %v", p.name, err)
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, p := range allPages(t) {
		for _, m := range link.FindAllStringSubmatch(p.prose(), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				t.Errorf("%s links to %s: these pages can be read without a network", p.name, target)
				continue
			}
			name := p.name
			if target != "" {
				name = filepath.ToSlash(filepath.Join(filepath.Dir(p.name), target))
			}
			if _, err := os.Stat(filepath.Join("..", name)); err != nil {
				t.Errorf("%s links to %s: %v", p.name, m[1], err)
				continue
			}
			if strings.HasPrefix(p.name, "docs/zh/") && strings.HasPrefix(name, "docs/") && !strings.HasPrefix(name, "docs/zh/") {
				t.Errorf("%s links to the English %s", p.name, name)
			}
			if anchor != "" && !hasAnchor(read(t, name), anchor) {
				t.Errorf("%s links to %s: no such heading", p.name, m[1])
			}
		}
	}
}

// hasAnchor tells whether a heading of the page has this anchor, as the common renderers make it.
func hasAnchor(p page, anchor string) bool {
	for _, h := range p.headings() {
		made := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, h[1])
		if made == anchor {
			return true
		}
	}
	return false
}

// tree is the program's command tree: the options of each command, by its words.
type tree map[string]map[string]bool

// program builds the program and reads its tree from its help.
var program = sync.OnceValues(func() (tree, error) {
	dir, err := os.MkdirTemp("", "waxwing-docs-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "waxwing")
	build := exec.Command("go", "build", "-o", binary, "./cmd/waxwing")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the program: %w: %s", err, out)
	}
	all := tree{}
	return all, all.grow(binary, nil)
})

var (
	helpCommand = regexp.MustCompile(`(?m)^  ([a-z]+(?:-[a-z]+)*(?: [a-z]+)*)(?:  |\n)`)
	helpOption  = regexp.MustCompile(`--(\[no-\])?([a-z-]+)`)
)

// grow reads the help of one command and of those below it.
func (all tree) grow(binary string, words []string) error {
	out, err := exec.Command(binary, append(slices.Clone(words), "--help")...).Output()
	if err != nil {
		return err
	}
	help, commands, _ := strings.Cut(string(out), "\nCommands:\n")
	options := map[string]bool{}
	if _, flags, ok := strings.Cut(help, "\nFlags:\n"); ok {
		for line := range strings.SplitSeq(flags, "\n") {
			// The option stands at the beginning; what follows may speak of others.
			head, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
			if m := helpOption.FindStringSubmatch(head); m != nil && strings.HasPrefix(strings.TrimSpace(line), "-") {
				options["--"+m[2]] = true
				if m[1] != "" {
					options["--no-"+m[2]] = true
				}
			}
		}
	}
	all[strings.Join(words, " ")] = options
	for _, m := range helpCommand.FindAllStringSubmatch(commands, -1) {
		if err := all.grow(binary, strings.Fields(m[1])); err != nil {
			return err
		}
	}
	return nil
}

// leads tells whether there are commands below words.
func (all tree) leads(words string) bool {
	for name := range all {
		if strings.HasPrefix(name, words+" ") {
			return true
		}
	}
	return false
}

// leaves are the commands that do something.
func (all tree) leaves() []string {
	var out []string
	for name := range all {
		if name != "" && !all.leads(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

var span = regexp.MustCompile("`([^`\n]+)`")

// commandLines are the lines of code on a page, continued lines joined.
func (p page) commandLines() []string {
	var out []string
	for _, b := range fence.FindAllStringSubmatch(p.text, -1) {
		out = append(out, strings.Split(strings.ReplaceAll(b[2], "\\\n", " "), "\n")...)
	}
	for _, m := range span.FindAllStringSubmatch(p.prose(), -1) {
		out = append(out, m[1])
	}
	return out
}

var lowerWord = regexp.MustCompile(`^[a-z][a-z-]*$`)

func TestCommandsExist(t *testing.T) {
	t.Parallel()
	all, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if len(all.leaves()) < 30 {
		t.Fatalf("only these commands were found: %v", all.leaves())
	}
	seen := 0
	for _, p := range allPages(t) {
		for _, line := range p.commandLines() {
			for _, wrong := range all.wrong(line, &seen) {
				t.Errorf("%s: %s: %s", p.name, strings.TrimSpace(line), wrong)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d commands were found on the pages", seen)
	}
}

// wrong tells what of a line of code the program doesn't know.
func (all tree) wrong(line string, seen *int) (out []string) {
	words := strings.FieldsFunc(line, func(r rune) bool { return unicode.IsSpace(r) || r == '|' })
	for i, w := range words {
		if w != "waxwing" && w != "bin/waxwing" || i+1 == len(words) || !lowerWord.MatchString(words[i+1]) {
			continue
		}
		*seen++
		name, rest := words[i+1], words[i+2:]
		if _, ok := all[name]; !ok {
			return append(out, "no command "+name)
		}
		for all.leads(name) && len(rest) > 0 && lowerWord.MatchString(rest[0]) {
			name, rest = name+" "+rest[0], rest[1:]
			if _, ok := all[name]; !ok {
				return append(out, "no command "+name)
			}
		}
		for _, w := range rest {
			option, _, _ := strings.Cut(w, "=")
			if strings.HasPrefix(option, "--") && len(option) > 2 && !all[name][option] {
				out = append(out, name+" has no option "+option)
			}
		}
	}
	return out
}

func TestReferenceNamesEveryCommandAndOption(t *testing.T) {
	t.Parallel()
	all, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"docs/reference/command-line.md", "docs/zh/reference/command-line.md"} {
		text := read(t, name).text
		for _, c := range all.leaves() {
			if !strings.Contains(text, "`waxwing "+c+"`") && !strings.Contains(text, "`waxwing "+c+" ") {
				t.Errorf("%s does not name waxwing %s", name, c)
			}
			for option := range all[c] {
				if !strings.Contains(text, "`"+option+"`") && !strings.Contains(text, "`"+option+" ") {
					t.Errorf("%s does not name %s of waxwing %s", name, option, c)
				}
			}
		}
	}
}

func TestTheCheckOfCommandsFindsMistakes(t *testing.T) {
	t.Parallel()
	all, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]int{
		"waxwing account list --dir demo":                  0,
		"sudo runuser -u waxwing -- waxwing init --dir D":  0,
		"sudo systemctl restart waxwing":                   0,
		"waxwing queue drop --to a@example.test --reason=": 0,
		"waxwing acount list":                              1,
		"waxwing account lst":                              1,
		"waxwing account list --dirr demo":                 1,
		"bin/waxwing queue drop --loud --silent --quiet":   2,
	} {
		seen := 0
		if got := all.wrong(line, &seen); len(got) != want {
			t.Errorf("%s: found %v, want %d mistakes", line, got, want)
		}
	}
}

var makeTarget = regexp.MustCompile(`^(?:sudo )?make ([a-z-]+)`)

func TestMakeTargetsExist(t *testing.T) {
	t.Parallel()
	makefile := read(t, "Makefile").text
	seen := 0
	for _, p := range allPages(t) {
		for _, line := range p.commandLines() {
			if m := makeTarget.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				seen++
				if !strings.Contains(makefile, "\n"+m[1]+":") {
					t.Errorf("%s: the Makefile has no target %s", p.name, m[1])
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no page speaks of make")
	}
}

var tableKey = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|[^|]*\\| ([^|]*) \\|")

func TestConfigurationPagesHaveTheSameKeys(t *testing.T) {
	t.Parallel()
	// The English page is made from the types; the Chinese one must follow by hand.
	keys := func(name string) (out []string) {
		for _, m := range tableKey.FindAllStringSubmatch(read(t, name).text, -1) {
			out = append(out, m[1]+" = "+strings.ReplaceAll(m[2], "无", "none"))
		}
		return out
	}
	en, zh := keys("docs/reference/waxwing.toml.md"), keys("docs/zh/reference/waxwing.toml.md")
	if len(en) < 30 {
		t.Fatalf("only %d keys were found", len(en))
	}
	if !slices.Equal(en, zh) {
		t.Errorf("keys and defaults differ:\n%v\n%v", en, zh)
	}
}

func TestInstallationIsThatOfTheUnit(t *testing.T) {
	t.Parallel()
	var shown []string
	for _, p := range allPages(t) {
		for _, line := range p.commandLines() {
			shown = append(shown, strings.TrimPrefix(strings.TrimSpace(line), "sudo "))
		}
	}
	lines := 0
	for line := range strings.SplitSeq(read(t, "packaging/systemd/waxwing.service").text, "\n") {
		command, ok := strings.CutPrefix(line, "#   ")
		if !ok {
			continue
		}
		lines++
		if !slices.Contains(shown, command) {
			t.Errorf("no page shows this line of the unit: %s", command)
		}
	}
	if lines < 5 {
		t.Errorf("the unit has only %d lines of installation", lines)
	}
}

var (
	// Han and Latin are set apart by a space; a mark beside Han is full-width.
	tight    = regexp.MustCompile("\\p{Han}[A-Za-z0-9`]|[A-Za-z0-9`]\\p{Han}")
	halfMark = regexp.MustCompile(`\p{Han}[,;:?!()]|[,;?!()]\p{Han}`)
)

func TestChineseIsSetAsItShouldBe(t *testing.T) {
	t.Parallel()
	for _, p := range allPages(t) {
		if !strings.HasPrefix(p.name, "docs/zh/") && p.name != "README.zh-CN.md" {
			continue
		}
		for line := range strings.SplitSeq(p.prose(), "\n") {
			text := link.ReplaceAllString(line, "]") // the target of a link is no text
			// Inside a code span a Chinese word stands for an argument.
			text = span.ReplaceAllString(text, "`code`")
			if m := tight.FindString(text); m != "" {
				t.Errorf("%s: no space in %q: %s", p.name, m, line)
			}
			if m := halfMark.FindString(text); m != "" {
				t.Errorf("%s: half-width mark in %q: %s", p.name, m, line)
			}
		}
	}
}
