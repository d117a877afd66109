package store_test

import (
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

func TestContractOnSQLiteAndPacks(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(tb testing.TB, dir string, clock func() time.Time) *store.Store {
		return storetest.Open(tb, dir, clock)
	})
}

func TestContractOnSmallChunks(t *testing.T) {
	t.Parallel()
	storetest.Run(t, storetest.OpenSmall)
}

func TestContractOnSQLiteAndEncryptedPacks(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(tb testing.TB, dir string, clock func() time.Time) *store.Store {
		return storetest.OpenEncrypted(tb, dir, clock)
	})
}
