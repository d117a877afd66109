package message

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// describe writes all that the package says about a message.
func describe(raw []byte) string {
	var b strings.Builder
	p := ParseBytes(raw)
	r := bytes.NewReader(raw)
	describePart(&b, p, r, "", true)
	fmt.Fprintf(&b, "envelope: %s\n", AppendEnvelope(nil, p.Header))
	fmt.Fprintf(&b, "body: %s\n", AppendBodyStructure(nil, p, false))
	fmt.Fprintf(&b, "bodystructure: %s\n", AppendBodyStructure(nil, p, true))
	fmt.Fprintf(&b, "subject: %q\n", p.Header.Text("Subject"))
	for _, name := range []string{"From", "To", "Cc"} {
		for _, a := range ParseAddressList(p.Header.Get(name), 100) {
			fmt.Fprintf(&b, "%s: %+q\n", strings.ToLower(name), a)
		}
	}
	fmt.Fprintf(&b, "preview: %q\n", Preview(p, r))
	return b.String()
}

func describePart(b *strings.Builder, p *Part, r io.ReaderAt, number string, message bool) {
	if number == "" {
		fmt.Fprint(b, "message")
	} else {
		fmt.Fprintf(b, "part %s", number)
	}
	fmt.Fprintf(b, " [%d %d %d] %s %s lines=%d", p.Offset, p.BodyOffset, p.End, p.MediaType(), p.Encoding, p.Lines)
	for _, q := range p.Params {
		fmt.Fprintf(b, " %s=%q", q.Name, q.Value)
	}
	if p.Disposition != "" {
		fmt.Fprintf(b, " disposition=%s", p.Disposition)
	}
	for _, q := range p.DispositionParams {
		fmt.Fprintf(b, " %s=%q", q.Name, q.Value)
	}
	if p.Defects != 0 {
		fmt.Fprintf(b, " defects=%s", p.Defects)
	}
	fmt.Fprintln(b)
	child := func(i int) string {
		if number == "" {
			return fmt.Sprint(i)
		}
		return fmt.Sprintf("%s.%d", number, i)
	}
	for i, c := range p.Parts {
		describePart(b, c, r, child(i+1), false)
	}
	switch {
	case p.Message != nil:
		describePart(b, p.Message, r, child(0), true)
	case len(p.Parts) == 0:
		text, err := io.ReadAll(p.Text(r))
		fmt.Fprintf(b, "  %q %v\n", text, err)
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/mail/*.eml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d messages, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".eml"), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := describe(raw)
			golden := strings.TrimSuffix(f, ".eml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
