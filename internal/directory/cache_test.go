package directory

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

func TestCacheDropsWhatWasReadBeforeAChange(t *testing.T) {
	t.Parallel()
	c := newLookupCache(100)
	_, epoch, ok := c.get("a")
	if ok {
		t.Fatal("an empty cache knows something")
	}
	c.clear() // a change commits while the row is being read
	c.put("a", known{account: &Account{}}, epoch)
	if _, _, ok = c.get("a"); ok {
		t.Error("what was read before a change is remembered after it")
	}
}

func TestCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	c := newLookupCache(1000)
	_, epoch, _ := c.get("used")
	c.put("used", known{account: &Account{ID: 7}}, epoch)
	for i := range 100_000 {
		c.put(fmt.Sprintf("unknown%d", i), known{}, epoch)
		if i%100 == 0 {
			c.put(fmt.Sprintf("real%d", i), known{account: &Account{}}, epoch)
		}
		if k, _, ok := c.get("used"); !ok || k.account.ID != 7 {
			t.Fatalf("forgot an address in use after %d others", i)
		}
	}
	if n := c.len(); n > 1100 {
		t.Errorf("%d entries in a cache of 1000", n)
	}
}

// versions is a repository whose only account changes its name all the time.
type versions struct {
	Repository
	name atomic.Int64
}

func (*versions) DirectoryRules(context.Context) ([]store.DirectoryRule, error) { return nil, nil }

func (v *versions) DirectoryDomains(context.Context) ([]store.DirectoryDomain, error) {
	return []store.DirectoryDomain{{Name: "example.test"}}, nil
}

func (v *versions) Settings(context.Context) (int64, []store.SettingRow, error) { return 0, nil, nil }

func (v *versions) LookupDirectoryAddress(context.Context, string) (store.DirectoryAddress, error) {
	return store.DirectoryAddress{Account: &store.DirectoryAccount{
		ID: 1, Local: "a", Domain: "example.test", QuotaBytes: v.name.Load(),
	}}, nil
}

func (v *versions) EditDirectory(_ context.Context, e store.DirectoryEdit) (int64, []store.AccountID, error) {
	v.name.Store(*e.SetAccounts[0].QuotaBytes)
	return 0, nil, nil
}

func TestReadersNeverSeeLessThanTheLastAcknowledgedChange(t *testing.T) {
	t.Parallel()
	d, err := New(context.Background(), &versions{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	to := address.Address{Local: "a", Domain: "example.test"}
	var acknowledged atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for acknowledged.Load() < 2000 {
				least := acknowledged.Load()
				res, err := d.Resolve(ctx, to)
				if err != nil {
					t.Error(err)
					return
				}
				if got := res.Recipients[0].Account.QuotaBytes; got < least {
					t.Errorf("saw version %d after %d was acknowledged", got, least)
					return
				}
			}
		})
	}
	for i := int64(1); i <= 2000; i++ {
		if err := d.SetAccount(ctx, Account{ID: 1, Language: "en", QuotaBytes: i}); err != nil {
			t.Error(err)
		}
		acknowledged.Store(i)
	}
	wg.Wait()
}

func BenchmarkResolve(b *testing.B) {
	d, err := New(context.Background(), &versions{}, Options{Clock: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	for name, to := range map[string]address.Address{
		"account":    {Local: "anna", Domain: "example.test"},
		"subaddress": {Local: "anna+news", Domain: "example.test"},
		"foreign":    {Local: "anna", Domain: "remote.test"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Resolve(ctx, to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestResolveAllocatesLittle(t *testing.T) {
	d, err := New(context.Background(), &versions{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	to := address.Address{Local: "anna", Domain: "example.test"}
	// The folded key and the slice of one recipient.
	if n := testing.AllocsPerRun(100, func() { _, _ = d.Resolve(ctx, to) }); n > 3 {
		t.Errorf("%.0f allocations for an address that is remembered", n)
	}
}
