package directory_test

import (
	"context"
	"errors"
	"testing"

	"waxwing/internal/directory"
	"waxwing/internal/directory/directorytest"
)

func TestFailureIsNeverNoSuchUser(t *testing.T) {
	t.Parallel()
	repo := directorytest.NewMemory()
	d := house(t, repo)
	ctx := context.Background()
	known := addr(t, "anna@example.test")
	if _, err := d.Resolve(ctx, known); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("disk on fire")
	repo.Fail(failure)
	if res, err := d.Resolve(ctx, known); err != nil || res.Status != directory.OK {
		t.Errorf("a remembered address: %v, %v", res.Status, err)
	}
	for _, a := range []string{"bo@example.test", "nobody@example.test", "postmaster@example.test"} {
		if _, err := d.Resolve(ctx, addr(t, a)); !errors.Is(err, failure) {
			t.Errorf("Resolve(%s): %v", a, err)
		}
	}
	if _, err := d.ByLogin(ctx, "bo@example.test"); !errors.Is(err, failure) || errors.Is(err, directory.ErrNotFound) {
		t.Errorf("ByLogin: %v", err)
	}
	if _, err := d.Owns(ctx, 1, addr(t, "bo@example.test")); !errors.Is(err, failure) {
		t.Errorf("Owns: %v", err)
	}
	repo.Fail(nil)
	if res, err := d.Resolve(ctx, addr(t, "bo@example.test")); err != nil || res.Status != directory.OK {
		t.Errorf("after recovery: %v, %v", res.Status, err)
	}
}

func TestResolveAnswersFromMemory(t *testing.T) {
	t.Parallel()
	repo := directorytest.NewMemory()
	d := house(t, repo)
	addAlias(t, d, "team@example.test", "anna@example.test", "bo@example.test")
	ctx := context.Background()
	all := []string{"anna@example.test", "anna+x@example.test", "team@example.test", "nobody@example.test", "postmaster@example.test", "x@remote.test"}
	for _, a := range all {
		_, _ = d.Resolve(ctx, addr(t, a))
	}
	before := repo.Questions()
	for _, a := range all {
		_, _ = d.Resolve(ctx, addr(t, a))
	}
	if n := repo.Questions() - before; n != 0 {
		t.Errorf("%d questions to the repository for what is remembered", n)
	}
}
