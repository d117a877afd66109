package directory_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"waxwing/internal/directory"
	"waxwing/internal/directory/directorytest"
	"waxwing/internal/store"
)

type changes = map[string]json.RawMessage

func TestSettingsAreChecked(t *testing.T) {
	t.Parallel()
	d := open(t, directorytest.NewMemory())
	for name, c := range map[string]changes{
		"unknown":          {"no.such": []byte("1")},
		"unknown default":  {"no.such": nil},
		"too small":        {"message.size": []byte("1")},
		"too large":        {"message.size": []byte("99999999999")},
		"not a number":     {"message.size": []byte(`"big"`)},
		"null":             {"message.size": []byte("null")},
		"fraction":         {"message.recipients": []byte("100.5")},
		"overflow":         {"message.recipients": []byte("99999999999999999999")},
		"two values":       {"message.recipients": []byte("200 300")},
		"not JSON":         {"folder.sent": []byte("Sent")},
		"slash":            {"folder.sent": []byte(`"a/b"`)},
		"the inbox":        {"folder.sent": []byte(`"inbox"`)},
		"same name":        {"folder.sent": []byte(`"trash"`)},
		"letter separates": {"address.subaddress_separator": []byte(`"x"`)},
		"at separates":     {"address.subaddress_separator": []byte(`"@"`)},
		"one of two wrong": {"message.recipients": []byte("200"), "account.language": []byte(`"xx"`)},
	} {
		_, err := d.ChangeSettings(context.Background(), -1, "test", c)
		var fe *directory.FieldError
		if !errors.As(err, &fe) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := d.Settings(); !reflect.DeepEqual(got, directory.DefaultSettings()) {
		t.Errorf("refused changes left %+v", got)
	}
}

func TestSettingsKeepTheirHistory(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := open(t, repo)
		set := func(base int64, c changes) directory.Settings {
			t.Helper()
			s, err := d.ChangeSettings(ctx, base, "li", c)
			must(t, err)
			return s
		}
		set(0, changes{"message.size": []byte("100000"), "folder.junk": []byte(`"Spam"`)})
		set(1, changes{"message.size": []byte("200000")})
		if s := set(2, changes{"message.size": []byte("200000")}); s.Version != 2 {
			t.Errorf("a change that changes nothing made version %d", s.Version)
		}
		if s := set(2, changes{"folder.junk": nil}); s.Version != 3 || s.JunkFolder != "Junk" {
			t.Errorf("back to the default: %+v", s)
		}
		if _, err := d.ChangeSettings(ctx, 2, "late", changes{"message.size": []byte("300000")}); !errors.Is(err, directory.ErrConflict) {
			t.Errorf("a change of an old version: %v", err)
		}
		for v, want := range map[int64]string{0: "Junk", 1: "Spam", 2: "Spam", 3: "Junk"} {
			s, err := d.SettingsAt(ctx, v)
			if err != nil || s.JunkFolder != want || s.Version != v {
				t.Errorf("version %d: %q %d, %v", v, s.JunkFolder, s.Version, err)
			}
		}
		if _, err := d.SettingsAt(ctx, 4); !errors.Is(err, directory.ErrNotFound) {
			t.Errorf("a version to come: %v", err)
		}
		old, err := d.DocumentAt(ctx, 1)
		must(t, err)
		plan, err := d.Plan(ctx, old)
		must(t, err)
		_, err = d.Apply(directory.WithActor(ctx, "li"), plan, false)
		s := d.Settings()
		if err != nil || s.Version != 4 || s.MessageSize != 100_000 || s.JunkFolder != "Spam" {
			t.Errorf("rolled back: %+v, %v", s, err)
		}
		history, err := d.SettingsHistory(ctx, 0, 3)
		must(t, err)
		var lines []string
		for _, c := range history {
			value := "default"
			if c.Value != nil {
				value = *c.Value
			}
			lines = append(lines, strings.Join([]string{c.Name, value, c.Actor}, " "))
		}
		want := []string{`folder.junk "Spam" li`, "message.size 100000 li", "folder.junk default li"}
		if !slices.Equal(lines, want) {
			t.Errorf("history:\n%s", strings.Join(lines, "\n"))
		}
		if older, _ := d.SettingsHistory(ctx, 2, 0); len(older) != 2 {
			t.Errorf("%d lines before version 2", len(older))
		}
		d = open(t, repo)
		if got := d.Settings(); !reflect.DeepEqual(got, s) {
			t.Errorf("after a restart: %+v, want %+v", got, s)
		}
	})
}

func TestSettingsListNamesEveryField(t *testing.T) {
	t.Parallel()
	d := open(t, directorytest.NewMemory())
	s, err := d.ChangeSettings(context.Background(), -1, "t", changes{"account.language": []byte(`"zh"`)})
	must(t, err)
	list := s.List()
	if !slices.IsSortedFunc(list, func(a, b directory.Setting) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted by name")
	}
	for _, e := range list {
		if e.Doc == "" || e.Changed != (e.Name == "account.language") {
			t.Errorf("%+v", e)
		}
	}
}

func TestDamagedSettingsLeaveTheDefault(t *testing.T) {
	t.Parallel()
	repo := directorytest.NewMemory()
	text := func(s string) *string { return &s }
	_, _, err := repo.EditDirectory(context.Background(), store.DirectoryEdit{Base: -1, Settings: []store.SettingChange{
		{Name: "message.size", Value: text("{{{")},
		{Name: "from.the.future", Value: text("1")},
		{Name: "message.recipients", Value: text("7")},
		{Name: "folder.sent", Value: text(`"Out"`)},
	}})
	must(t, err)
	s := open(t, repo).Settings()
	if d := directory.DefaultSettings(); s.MessageSize != d.MessageSize || s.Recipients != d.Recipients || s.SentFolder != "Out" {
		t.Errorf("%+v", s)
	}
}
