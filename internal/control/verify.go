package control

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/digest"
	"waxwing/internal/directory"
	"waxwing/internal/message"
	"waxwing/internal/store"
)

// Operations that prove the store, and mend it.
var (
	StoreVerify   = operation("store.verify", (*Service).storeVerify)
	StoreRepair   = operation("store.repair", (*Service).storeRepair)
	StoreProgress = operation("store.progress", (*Service).storeProgress)
	StoreScrub    = operation("store.scrub", (*Service).storeScrub)
)

// proof is what StoreVerify and StoreRepair share: one of them runs at a time.
type proof struct {
	running sync.Mutex
	now     atomic.Pointer[Verified]
}

// maxProblems bounds the problems that an answer lists; the rest are counted.
const maxProblems = 10_000

// Verification asks for the store to be verified.
type Verification struct {
	Account  string `json:"account,omitempty"` // only this one
	RowsOnly bool   `json:"rows_only,omitempty"`
	Rate     int64  `json:"rate,omitempty"` // octets a second; 0: as fast as it goes
}

// Verified is how far a verification is, or was.
type Verified struct {
	Accounts  int64 `json:"accounts"`
	Mailboxes int64 `json:"mailboxes"`
	Entries   int64 `json:"entries"`
	Messages  int64 `json:"messages"`
	Contents  int64 `json:"contents"`
	Octets    int64 `json:"octets"`
	Total     int64 `json:"total"` // octets to be read
	Problems  int64 `json:"problems"`
}

// VerifyReport is the result of a verification or a repair.
type VerifyReport struct {
	Verified
	List      []Problem `json:"list"`
	Fixed     int64     `json:"fixed,omitempty"`
	Recovered int64     `json:"recovered,omitempty"`
	DryRun    bool      `json:"dry_run,omitempty"`
}

// Problem is one thing that is not as it should be.
type Problem struct {
	Kind    string `json:"kind"`
	Account string `json:"account,omitempty"`
	Mailbox string `json:"mailbox,omitempty"`
	UID     uint32 `json:"uid,omitempty"`
	Message int64  `json:"message,omitempty"`
	Place   string `json:"place,omitempty"`
	Text    string `json:"text"`
	Fixed   string `json:"fixed,omitempty"` // how it was mended, or would be
}

func shownVerified(v store.Verified) Verified {
	return Verified{
		Accounts: v.Accounts, Mailboxes: v.Mailboxes, Entries: v.Entries, Messages: v.Messages, Contents: v.Contents,
		Octets: v.Octets, Total: v.Total, Problems: v.Problems,
	}
}

// begin refuses a second run, and lets progress be asked for.
func (s *Service) beginProof() (progress func(store.Verified), end func(), err error) {
	if !s.proof.running.TryLock() {
		return nil, nil, Errorf(Conflict, "the store is being verified or repaired already")
	}
	s.proof.now.Store(&Verified{})
	progress = func(v store.Verified) {
		shown := shownVerified(v)
		s.proof.now.Store(&shown)
	}
	return progress, func() { s.proof.now.Store(nil); s.proof.running.Unlock() }, nil
}

// shownProblem names the account of a problem; where that can't be found it stays without.
func (s *Service) shownProblem(ctx context.Context, p store.Problem) Problem {
	out := Problem{
		Kind: string(p.Kind), Mailbox: p.Name, UID: uint32(p.UID), Message: int64(p.Message), Place: p.Place, Text: p.Text,
	}
	if p.Account == 0 {
		return out
	}
	if a, err := s.dir.AccountByID(ctx, p.Account); err == nil {
		out.Account = a.Address.Unicode()
	}
	if out.Mailbox == "" && p.Mailbox != 0 {
		if m, err := s.store.MailboxByID(ctx, p.Account, p.Mailbox); err == nil {
			out.Mailbox = m.Name
		}
	}
	return out
}

func (s *Service) storeVerify(ctx context.Context, req Verification) (VerifyReport, error) {
	opts := store.VerifyOptions{RowsOnly: req.RowsOnly, Rate: req.Rate}
	if req.Account != "" {
		a, err := s.account(ctx, req.Account)
		if err != nil {
			return VerifyReport{}, err
		}
		opts.Account = a.ID
	}
	progress, end, err := s.beginProof()
	if err != nil {
		return VerifyReport{}, err
	}
	defer end()
	var found []store.Problem
	opts.Progress = progress
	opts.Found = func(p store.Problem) {
		if len(found) < maxProblems {
			found = append(found, p)
		}
	}
	done, err := s.store.Verify(ctx, opts)
	out := VerifyReport{Verified: shownVerified(done), List: []Problem{}}
	for _, p := range found {
		out.List = append(out.List, s.shownProblem(ctx, p))
	}
	return out, err
}

// Repairing asks for the store to be repaired.
type Repairing struct {
	DryRun    bool   `json:"dry_run,omitempty"`
	RecoverTo string `json:"recover_to,omitempty"` // account that takes records of the packs that no row names
}

func (s *Service) storeRepair(ctx context.Context, req Repairing) (VerifyReport, error) {
	opts := store.RepairOptions{DryRun: req.DryRun, Digest: digestContent}
	if req.RecoverTo != "" {
		a, err := s.account(ctx, req.RecoverTo)
		if err != nil {
			return VerifyReport{}, err
		}
		opts.Recover = a.ID
	}
	progress, end, err := s.beginProof()
	if err != nil {
		return VerifyReport{}, err
	}
	defer end()
	out := VerifyReport{List: []Problem{}, DryRun: req.DryRun}
	how := make(map[store.Problem]string)
	var found []store.Problem
	opts.Progress = progress
	opts.Found = func(p store.Problem) {
		if len(found) < maxProblems {
			found = append(found, p)
		}
	}
	opts.Fixed = func(p store.Problem, text string) {
		if len(how) < maxProblems {
			how[p] = text
		}
	}
	done, err := s.store.Repair(ctx, opts)
	out.Verified, out.Fixed, out.Recovered = shownVerified(done.Verified), done.Fixed, done.Recovered
	for _, p := range found {
		shown := s.shownProblem(ctx, p)
		shown.Fixed = how[p]
		out.List = append(out.List, shown)
	}
	if err == nil && !req.DryRun {
		s.log.Info("store repaired", "problems", done.Problems, "steps", done.Fixed, "recovered", done.Recovered, "by", directory.Actor(ctx))
	}
	return out, err
}

// digestContent makes the summary of a content as a delivery does.
func digestContent(c store.Content) (store.Summary, error) {
	part, err := message.Parse(c, c.Size(), message.DefaultLimits)
	if err != nil {
		return store.Summary{}, err
	}
	return digest.Make(part, c, c.Size()), nil
}

// errIdle says that nothing runs that could progress.
var errIdle = errors.New("the store is neither being verified nor repaired")

func (s *Service) storeProgress(context.Context, Done) (Verified, error) {
	now := s.proof.now.Load()
	if now == nil {
		return Verified{}, Errorf(NotFound, "%w", errIdle)
	}
	return *now, nil
}

// Scrub is what the slow reading in the background knows.
type Scrub struct {
	Began    time.Time `json:"began,omitzero"` // this round
	Contents int64     `json:"contents"`
	Octets   int64     `json:"octets"`
	Finished time.Time `json:"finished,omitzero"` // when the last whole round began
	Damaged  int64     `json:"damaged"`           // messages' contents known to be damaged
}

func (s *Service) storeScrub(ctx context.Context, _ Done) (Scrub, error) {
	st, err := s.store.Scrub(ctx)
	return Scrub{Began: st.Began, Contents: st.Checked, Octets: st.Octets, Finished: st.Finished, Damaged: st.Damaged}, err
}
