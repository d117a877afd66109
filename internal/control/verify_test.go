package control_test

import (
	"strings"
	"testing"

	"waxwing/internal/control"
	"waxwing/internal/control/controltest"
	"waxwing/internal/store"
)

func TestTheStoreIsVerifiedAndRepaired(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, b *controltest.Bench) {
		ctx := t.Context()
		a := b.Account(t, "li@example.test")
		in, err := b.Store.Mailbox(ctx, a.ID, "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Store.Append(ctx, a.ID, in.ID, []store.NewMessage{{Content: strings.NewReader("Subject: x\r\n\r\ny\r\n")}}); err != nil {
			t.Fatal(err)
		}
		r, err := control.StoreVerify.Call(ctx, c, control.Verification{})
		if err != nil || r.Problems != 0 || r.Messages != 1 || r.List == nil {
			t.Fatalf("verify: %+v, %v", r, err)
		}
		_, err = control.StoreProgress.Call(ctx, c, control.Done{})
		wantKind(t, "progress of nothing", err, control.NotFound)
		_, err = control.StoreVerify.Call(ctx, c, control.Verification{Account: "b@example.test"})
		wantKind(t, "an unknown account", err, control.NotFound)
		err = b.Store.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE mailbox SET messages = 7 WHERE account_id = $1 AND mailbox_id = $2`, a.ID, in.ID)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		r, err = control.StoreVerify.Call(ctx, c, control.Verification{Account: "li@example.test"})
		if err != nil || len(r.List) != 1 || r.List[0].Account != "li@example.test" || r.List[0].Mailbox != "INBOX" || r.List[0].Kind != "counts" {
			t.Errorf("verify: %+v, %v", r, err)
		}
		r, err = control.StoreRepair.Call(ctx, c, control.Repairing{})
		if err != nil || len(r.List) != 1 || r.List[0].Fixed == "" {
			t.Errorf("repair: %+v, %v", r, err)
		}
		if r, err = control.StoreVerify.Call(ctx, c, control.Verification{}); err != nil || r.Problems != 0 {
			t.Errorf("after the repair: %+v, %v", r, err)
		}
		st, err := control.StoreScrub.Call(ctx, c, control.Done{})
		if err != nil || st.Damaged != 0 {
			t.Errorf("scrub: %+v, %v", st, err)
		}
	})
}
