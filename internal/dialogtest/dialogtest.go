// Package dialogtest is what the tests of the IMAP and the POP3 server have in common: a directory of one account, a store
// with its mailboxes, keys for TLS, a server on ports of loopback, a peer that speaks in lines, and the player of dialogs
// that are written down as text. It knows neither protocol.
//
// It is for test code alone.
package dialogtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/auth"
	"waxwing/internal/certs"
	"waxwing/internal/directory"
	"waxwing/internal/listen"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
)

// Login is the name of the one account.
const Login = "a@example.test"

// Patience is how long a peer waits for what must come, a whole conversation included: a busy machine takes its time.
const Patience = 2 * time.Minute

// Accounts is a directory of one account.
type Accounts struct {
	ID   store.AccountID
	Hash string // of the password: see Hash
	Down bool   // it can't be asked
}

// ByLogin finds the account.
func (a Accounts) ByLogin(_ context.Context, login string) (directory.Account, error) {
	if a.Down {
		return directory.Account{}, errors.New("directory is down")
	}
	if login != Login {
		return directory.Account{}, directory.ErrNotFound
	}
	at, err := address.Parse(Login)
	return directory.Account{ID: a.ID, Address: at}, err
}

// PasswordHash is the account's.
func (a Accounts) PasswordHash(context.Context, store.AccountID) (string, int64, error) {
	return a.Hash, 1, nil
}

// once keeps what is costly to make for all tests of a package.
type once[T any] struct {
	mu   sync.Mutex
	made map[string]T
}

func (o *once[T]) get(tb testing.TB, name string, create func() (T, error)) T {
	tb.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	v, ok := o.made[name]
	if !ok {
		var err error
		if v, err = create(); err != nil {
			tb.Fatal(err)
		}
		o.made[name] = v
	}
	return v
}

var (
	hashes  = once[string]{made: map[string]string{}}
	keyring = once[Keys]{made: map[string]Keys{}}
)

// Hash is the hash of a password.
func Hash(tb testing.TB, password string) string {
	tb.Helper()
	return hashes.get(tb, password, func() (string, error) { return auth.HashPassword([]byte(password)) })
}

// Keys are the TLS configurations of a server and of a client that trusts it, and the certificate itself.
type Keys struct {
	Server, Client *tls.Config
	PEM            []byte
}

// KeysFor are the keys of a host name, which stands at 127.0.0.1.
func KeysFor(tb testing.TB, hostname string) Keys {
	tb.Helper()
	return keyring.get(tb, hostname, func() (Keys, error) {
		certificate, key, err := certs.SelfSigned([]string{hostname, "127.0.0.1"}, time.Now())
		if err != nil {
			return Keys{}, err
		}
		pair, err := tls.X509KeyPair(certificate, key)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(certificate)
		return Keys{
			Server: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
			Client: &tls.Config{RootCAs: pool, ServerName: hostname, MinVersion: tls.VersionTLS12},
			PEM:    certificate,
		}, err
	})
}

// OpenStore opens a new store in a folder, with one account that has the default mailboxes, until the test ends.
func OpenStore(tb testing.TB, dir string, id store.AccountID) *store.Store {
	tb.Helper()
	ctx := context.Background() // also at the end of the test
	db, err := sqlite.Open(ctx, filepath.Join(dir, "mail.db"), sqlite.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	packs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "packs"), Reserve: -1})
	if err != nil {
		tb.Fatal(err)
	}
	st, err := store.Open(ctx, store.Options{DB: db, Blobs: store.Packs(packs)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := st.Close(); err != nil {
			tb.Error(err)
		}
	})
	err = st.Write(ctx, func(tx *store.Tx) error { return st.CreateAccountState(tx, id, store.DefaultMailboxes) })
	if err != nil {
		tb.Fatal(err)
	}
	return st
}

// Server is a server of a protocol.
type Server interface {
	Serve(l net.Listener, implicitTLS bool) error
	Shutdown(ctx context.Context) error
}

// Serve runs a server at two addresses of loopback until the test ends: at one TLS begins on demand, at the other at once.
func Serve(tb testing.TB, server Server) (plain, implicit string) {
	tb.Helper()
	var serving sync.WaitGroup
	for _, at := range []*string{&plain, &implicit} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		*at = l.Addr().String()
		serving.Go(func() {
			if err := server.Serve(l, at == &implicit); !errors.Is(err, listen.ErrClosed) {
				tb.Errorf("serve: %v", err)
			}
		})
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			tb.Error(err)
		}
		serving.Wait()
	})
	return plain, implicit
}
