package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"

	"waxwing/internal/control"
)

// present tells which messages of the batch an earlier run has put into the mailbox already. That can be only so for the
// first batch of a resumed run: a batch is committed whole, and the state is written before the next. Those that came
// into the mailbox since the state was written are compared by size, date and content; each of them stands for one
// message of the batch, as a file may hold the same message twice.
func (im *importer) present(ctx context.Context, at *importFile) (map[int]bool, error) {
	if !im.doubt {
		return nil, nil
	}
	im.doubt = false
	offsets := make([]int64, len(im.batch))
	bySize := map[int64][]int{} // messages of the batch that aren't found yet
	var offset int64
	for i, m := range im.batch {
		offsets[i] = offset
		offset += m.Size
		bySize[m.Size] = append(bySize[m.Size], i)
	}
	found := map[int]bool{}
	req := control.MessagePage{Account: im.account, Mailbox: im.target.ID, After: max(at.UIDNext, 1) - 1}
	for len(found) < len(im.batch) {
		page, err := control.MessageList.Call(ctx, im.carrier, req)
		if err != nil || len(page.Messages) == 0 {
			return found, err
		}
		for _, stored := range page.Messages {
			req.After = stored.UID
			at.UIDNext = stored.UID + 1
			for j, i := range bySize[stored.Size] {
				want := im.batch[i].InternalDate
				if !want.IsZero() && want.Unix() != stored.InternalDate.Unix() {
					continue
				}
				same, err := im.same(ctx, stored, io.NewSectionReader(im.spool, offsets[i], stored.Size))
				if err != nil {
					return nil, err
				}
				if same {
					found[i] = true
					bySize[stored.Size] = append(append([]int(nil), bySize[stored.Size][:j]...), bySize[stored.Size][j+1:]...)
					break
				}
			}
		}
	}
	return found, nil
}

// same compares a stored message with one of the batch. One that can't be read is another.
func (im *importer) same(ctx context.Context, stored control.Message, want io.Reader) (bool, error) {
	r, err := control.MessageRead.Call(ctx, im.carrier, control.MessageRef{Account: im.account, ID: stored.ID})
	if err != nil {
		if ctx.Err() != nil || control.KindOf(err) == control.Unavailable {
			return false, err
		}
		return false, nil
	}
	defer r.Close()
	var a, b [32 << 10]byte
	for {
		n, err := io.ReadFull(want, a[:])
		m, rerr := io.ReadFull(r, b[:n])
		if m != n || !bytes.Equal(a[:n], b[:m]) {
			return false, ctx.Err()
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err != nil || rerr != nil {
			return false, errors.Join(err, rerr)
		}
	}
}
