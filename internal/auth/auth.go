// Package auth tells who someone is: passwords (argon2id, RFC 9106) and the SASL mechanisms that carry them (RFC 4422;
// PLAIN, RFC 4616; LOGIN, draft-murchison-sasl-login). It is shared by SMTP submission, IMAP and POP3, so that all of
// them count failures together.
//
// It doesn't say what an identity may do: that is for the callers. Nothing here works without TLS, no password is kept
// (a verified one is remembered as a MAC under a key of this process), and a peer can't learn whether an account
// exists, neither from texts nor from the time that an answer takes.
//
//	ex, err := a.Start(ctx, attempt, "PLAIN")
//	challenge, id, err := ex.Next(ctx, nil) // no initial response: challenge is empty, send it
//	_, id, err = ex.Next(ctx, response)     // id != nil: signed in
package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/store"
)

// Errors of authentication. What a session answers: ErrCredentials 535 5.7.8 (or NO [AUTHENTICATIONFAILED]);
// ErrTemporary, ErrBusy and ErrThrottled 454 4.7.0 (or NO [UNAVAILABLE]); ErrAborted and ErrMalformed 501 5.5.2;
// ErrMechanism 504 5.5.4; ErrTLS 538 5.7.11.
var (
	ErrCredentials = errors.New("auth: wrong user name or password")
	ErrTemporary   = errors.New("auth: the directory can't be asked now")
	ErrBusy        = errors.New("auth: too many sign-ins at once")
	ErrThrottled   = errors.New("auth: too many failures, try later")
	ErrAborted     = errors.New("auth: cancelled by the client")
	ErrMechanism   = errors.New("auth: no such mechanism")
	ErrMalformed   = errors.New("auth: malformed response")
	ErrTLS         = errors.New("auth: not without TLS")
)

// Identity is who signed in.
type Identity struct {
	Account   store.AccountID
	Address   address.Address
	Admin     bool
	Mechanism string // "PLAIN", "LOGIN", "USER", ...
}

// Attempt says where a sign-in comes from.
type Attempt struct {
	Protocol string // "smtp", "imap", "pop3"
	Listener string // "submission", "submissions", or "" where it is the protocol
	Remote   netip.AddrPort
	TLS      bool
}

// Accounts is what auth asks of the directory.
type Accounts interface {
	ByLogin(ctx context.Context, login string) (directory.Account, error) // directory.ErrNotFound
	PasswordHash(ctx context.Context, id store.AccountID) (phc string, version int64, err error)
}

// Options of an Auth; the zero value serves.
type Options struct {
	Clock       func() time.Time // time.Now when nil
	Rand        io.Reader        // crypto/rand when nil
	Logger      *slog.Logger     // discarded when nil
	Concurrency int              // passwords hashed at once; the number of cores when 0
	Waiting     int              // sign-ins that may wait for that; 256 when 0
	Remembered  int              // verified sign-ins remembered; 10,000 when 0
	RememberFor time.Duration    // 5 minutes when 0
	Throttle    ThrottleOptions
	// Admit tells whether an account may be signed in to by this way, once the password was right; nil: always. Who is turned
	// away hears what a wrong password hears.
	Admit func(at Attempt, acct directory.Account) bool
}

// Auth checks passwords. It is safe for concurrent use and starts no goroutine.
type Auth struct {
	accounts Accounts
	log      *slog.Logger
	hashing  chan struct{} // a token is one hash at work
	waiting  chan struct{} // a token is one sign-in that works or waits
	verified *verified
	throttle *throttle
	admit    func(Attempt, directory.Account) bool
	dummy    phc // verified against when there is no account, so that it takes as long

	succeeded, failed, throttled, busy, hashed, remembered atomic.Int64
}

// Stats counts what happened since the start.
type Stats struct {
	Succeeded, Failed, Throttled, Busy int64 // sign-ins by outcome
	Hashed, Remembered                 int64 // passwords that were hashed, and those known from memory
}

// Stats gives the counts.
func (a *Auth) Stats() Stats {
	return Stats{
		Succeeded: a.succeeded.Load(), Failed: a.failed.Load(), Throttled: a.throttled.Load(), Busy: a.busy.Load(),
		Hashed: a.hashed.Load(), Remembered: a.remembered.Load(),
	}
}

// New gives an Auth over a directory. The error is that of the source of randomness.
func New(accounts Accounts, opts Options) (*Auth, error) {
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Concurrency <= 0 {
		opts.Concurrency = runtime.GOMAXPROCS(0)
	}
	if opts.Waiting <= 0 {
		opts.Waiting = 256
	}
	v, err := newVerified(opts)
	if err != nil {
		return nil, fmt.Errorf("auth: make the key of remembered sign-ins: %w", err)
	}
	dummy, err := newDummy(opts.Rand)
	if err != nil {
		return nil, fmt.Errorf("auth: make a hash to compare with: %w", err)
	}
	return &Auth{
		accounts: accounts,
		log:      opts.Logger,
		hashing:  make(chan struct{}, opts.Concurrency),
		waiting:  make(chan struct{}, opts.Concurrency+opts.Waiting),
		verified: v,
		throttle: newThrottle(opts.Throttle, opts.Clock),
		admit:    opts.Admit,
		dummy:    dummy,
	}, nil
}

// maxField bounds user name and password each, in octets.
const maxField = 1024

// Password checks a login name and a password, and leaves the password's octets as they are: the caller clears them.
// The name is an account's address or an alias that leads to this account alone.
func (a *Auth) Password(ctx context.Context, at Attempt, login string, password []byte) (*Identity, error) {
	return a.password(ctx, at, login, password, "USER")
}

func (a *Auth) password(ctx context.Context, at Attempt, login string, password []byte, mechanism string) (*Identity, error) {
	if !at.TLS {
		return nil, ErrTLS
	}
	if login == "" || len(login) > maxField || len(password) == 0 || len(password) > maxField {
		return nil, ErrCredentials
	}
	acct, hash, err := a.find(ctx, login)
	if err != nil {
		a.log.Error("sign-in could not be checked", "protocol", at.Protocol, "remote", at.Remote.Addr(), "error", err)
		return nil, fmt.Errorf("%w: %w", ErrTemporary, err)
	}
	pass, err := a.throttle.begin(ctx, at.Remote.Addr(), pairName(acct, login))
	if err != nil {
		a.throttled.Add(1)
		return nil, err
	}
	ok, err := a.verify(ctx, acct, hash, password)
	if err != nil {
		pass.cancel()
		return nil, err
	}
	if ok && acct.ID != 0 && !acct.Suspended && a.admit != nil && !a.admit(at, acct) {
		ok = false
	}
	if !ok || acct.ID == 0 || acct.Suspended {
		pass.failed()
		a.failed.Add(1)
		a.log.Info("sign-in failed", "protocol", at.Protocol, "remote", at.Remote.Addr(), "account", int64(acct.ID))
		return nil, ErrCredentials
	}
	pass.succeeded()
	a.succeeded.Add(1)
	return &Identity{Account: acct.ID, Address: acct.Address, Admin: acct.Admin, Mechanism: mechanism}, nil
}

// find reads the account and its hash. An unknown name gives the zero account and the dummy hash after the same two
// questions to the directory.
func (a *Auth) find(ctx context.Context, login string) (directory.Account, phc, error) {
	acct, err := a.accounts.ByLogin(ctx, login)
	if err != nil && !errors.Is(err, directory.ErrNotFound) {
		return directory.Account{}, phc{}, err
	}
	text, version, err := a.accounts.PasswordHash(ctx, acct.ID)
	if errors.Is(err, directory.ErrNotFound) {
		return directory.Account{}, a.dummy, nil
	}
	if err != nil {
		return directory.Account{}, phc{}, err
	}
	acct.PasswordVersion = version
	hash, err := parsePHC(text)
	if err != nil {
		if text != "" {
			a.log.Error("password hash can't be read: nobody can sign in", "account", int64(acct.ID), "error", err)
		}
		// No password, or one that can't be read, is one that never matches.
		return directory.Account{}, a.dummy, nil
	}
	return acct, hash, nil
}

// verify compares a password with a hash, from memory when this one was verified lately.
func (a *Auth) verify(ctx context.Context, acct directory.Account, hash phc, password []byte) (bool, error) {
	prepared := prepare(password)
	defer clear(prepared)
	mac := a.verified.mac(acct.ID, acct.PasswordVersion, prepared)
	if acct.ID != 0 && a.verified.has(mac) {
		a.remembered.Add(1)
		return true, nil
	}
	select {
	case a.waiting <- struct{}{}:
	default:
		a.busy.Add(1)
		return false, ErrBusy
	}
	defer func() { <-a.waiting }()
	select {
	case a.hashing <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	a.hashed.Add(1)
	ok := hash.matches(prepared)
	<-a.hashing
	if ok && acct.ID != 0 {
		a.verified.add(mac)
	}
	return ok, nil
}
