package store

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"INBOX", "inbox/a", "工作/发票", "cafe\u0301", "a//b", strings.Repeat("\u0344", 300), "\u212a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		clean, err := CleanName(name)
		if err != nil {
			return
		}
		if !utf8.ValidString(clean) || len(clean) > maxName || strings.Contains(clean, "//") {
			t.Errorf("%q became %q", name, clean)
		}
		if again, err := CleanName(clean); err != nil || again != clean {
			t.Errorf("%q became %q, then %q, %v", name, clean, again, err)
		}
		if top, _, _ := strings.Cut(clean, "/"); strings.EqualFold(top, inbox) && top != inbox {
			t.Errorf("%q became %q", name, clean)
		}
	})
}

func TestInboxIsTheFirstLevelOnly(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"inbox": "INBOX", "iNbOx/Inbox": "INBOX/Inbox", "a/inbox": "a/inbox", "inboxes": "inboxes", "INBOX": "INBOX",
		"\u0131nbox": "\u0131nbox", // a dotless i is another letter
	} {
		if got, err := CleanName(name); err != nil || got != want {
			t.Errorf("%q became %q, %v; want %q", name, got, err, want)
		}
	}
}
