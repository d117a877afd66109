package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/cache"
)

// Options configures Open. Zero values mean the defaults given here.
type Options struct {
	DB           *Database // required; closed by Close
	Blobs        BlobStore // required, not yet recovered; closed by Close
	Search       Searcher  // an index of the text of messages, not yet started; closed by Close; nil for none
	Clock        func() time.Time
	Logger       *slog.Logger
	IndexSize    int64 // octets of memory for the indexes of mailboxes that no View uses, 256 MiB
	SummaryCache int64 // octets of memory for summaries that were read, about, 32 MiB
	IndexChunk   int   // entries of a mailbox that are read into memory together, 1,024; up to twice as many are read when it is opened
	MaxAccounts  int   // accounts held in memory that nobody uses, 10,000
	MaxMailboxes int   // mailboxes of one account, 10,000
	Policy       Policy
	Load         bool   // open it to be loaded, and for nothing else: see Loader
	Name         string // of this node, for people, where several are on one database
	// Purged is told of messages that are gone for good, after the commit and by the writer: it must not block. A crash may
	// come between, so who keeps an index of messages must look for the gone ones now and then too.
	Purged func(acct AccountID, ids []MessageID)
}

func (o *Options) setDefaults() {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.IndexSize == 0 {
		o.IndexSize = 256 << 20
	}
	if o.SummaryCache == 0 {
		o.SummaryCache = 32 << 20
	}
	if o.IndexChunk == 0 {
		o.IndexChunk = chunkSize
	}
	if o.MaxAccounts == 0 {
		o.MaxAccounts = 10_000
	}
	if o.MaxMailboxes == 0 {
		o.MaxMailboxes = 10_000
	}
}

// Store is the mail state of one node. All methods may be called at the same time.
type Store struct {
	opts  Options
	db    *Database
	blobs BlobStore
	log   *slog.Logger
	clock func() time.Time

	reads        *reads
	writer       *writer
	ids          *ids // of the writer's goroutine
	accounts     *accounts
	indexes      *indexes
	notices      *notices
	refs         *refs
	link         *link  // to the other nodes, nil when there can't be any
	fresh        *fresh // nil unless contents commit with their rows
	summaries    *cache.Cache[messageKey, *Summary]
	policy       atomic.Pointer[Policy]
	suppressing  atomic.Bool  // there are rows in queue_suppressed, about
	rulesChanged atomic.Int64 // of the queue, by this node
	volumes      volumes      // how much senders have queued lately
	turns        laneTurns    // of the queue's lanes
	domains      *domains
	loads        chan struct{} // bounds the mailboxes that are read into memory at the same time
	snapshots    *snapshots

	maildropMu sync.Mutex
	maildrops  map[AccountID]struct{}

	closeOnce sync.Once
	closeErr  error
}

// maxRefs is how many places of contents are remembered, some 100 octets each.
const maxRefs = 1 << 16

// Open makes a Store of an opened database and blob store, and recovers the latter. It reads no rows of messages: its time
// does not grow with them.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.DB == nil || opts.Blobs == nil {
		return nil, errors.New("store: open: database and blob store are required")
	}
	opts.setDefaults()
	s := &Store{
		opts: opts, db: opts.DB, blobs: opts.Blobs, log: opts.Logger, clock: opts.Clock,
		reads: newReads(opts.DB), indexes: newIndexes(opts.IndexSize), notices: newNotices(), refs: newRefs(maxRefs),
		summaries: cache.New[messageKey, *Summary](opts.SummaryCache),
		maildrops: make(map[AccountID]struct{}),
	}
	s.domains = &domains{s: s}
	s.SetPolicy(opts.Policy)
	s.fresh, _ = opts.Blobs.(*fresh)
	s.fresh.attach(s)
	s.accounts = newAccounts(s, opts.MaxAccounts)
	s.link = newLink(s)
	s.loads = make(chan struct{}, max(1, s.reads.n/2))
	s.snapshots = newSnapshots(min(maxSnapshots, s.reads.n/2))
	err := s.Read(ctx, func(q Querier) (err error) {
		if err = s.refuseLoading(q); err == nil {
			s.ids, err = loadIDs(q, s.shared())
		}
		return err
	})
	if err == nil {
		err = s.recoverBlobs(ctx)
	}
	if err == nil {
		s.writer, err = newWriter(ctx, s)
	}
	next := MessageID(0)
	if err == nil {
		next = MessageID(s.ids.message.next) // the writer's from here on
		go s.notices.run()
		go s.writer.run()
		err = s.link.start(ctx)
	}
	if err != nil {
		if s.writer != nil {
			err = errors.Join(err, s.writer.close())
			s.notices.close()
		}
		return nil, errors.Join(fmt.Errorf("store: open: %w", err), s.reads.close())
	}
	s.startSearch(next)
	s.fresh.start(s)
	return s, nil
}

// Close finishes what waits to be written, and closes the database and the blob store. Views must be closed before.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.fresh.stop()
		s.link.stop()
		err := errors.Join(s.snapshots.close(), s.closeSearch(), s.writer.close())
		s.notices.close()
		s.closeErr = errors.Join(err, s.reads.close(), s.blobs.Close(), s.db.Close())
	})
	return s.closeErr
}

// keepRecent records from which UID on messages are recent. Nobody waits for it: what is lost by a crash, or because
// nothing can be written, is shown as recent once more.
func (s *Store) keepRecent(acct AccountID, box MailboxID, from UID) {
	o := &op{done: make(chan error, 1), fn: func(tx *Tx) error {
		if _, err := tx.lockAccount(acct); err != nil {
			return err
		}
		return tx.exec(`UPDATE mailbox SET first_recent = $3 WHERE account_id = $1 AND mailbox_id = $2 AND first_recent < $3`, acct, box, from)
	}}
	if err := s.writer.enqueue(o); err != nil {
		s.log.Debug("store: recent mark", "account", acct, "mailbox", box, "err", err)
	}
}

// Writable says whether a message of size octets would find room: nil, ErrFull or ErrReadOnly.
func (s *Store) Writable(size int64) error {
	if err := s.writer.failure(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return blobError(s.blobs.Writable(size))
}

// Waiting is how many transactions wait for their turn.
func (s *Store) Waiting() int { return s.writer.waiting() }
