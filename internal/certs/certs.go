// Package certs is the TLS of this node: the certificates that it shows, taken up anew when their files change, and
// the one profile that every listener uses.
//
// The profile is TLS 1.2 and 1.3 (RFC 8996 retires the rest), ephemeral key exchange and AEAD ciphers only (RFC 9325,
// section 4.2), with the hybrid X25519MLKEM768 first. It does not obtain certificates and does not verify those of
// other servers: that is package transport's part.
package certs

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Pair names the PEM files of one certificate with its chain, and of its private key.
type Pair struct{ Cert, Key string }

// Keyring holds the certificates of this node. Its zero value is not useful; Open makes one.
type Keyring struct {
	pairs  []Pair
	log    *slog.Logger
	reload sync.Mutex // held by Reload, so that two of them don't pass one another
	stamps []stamp    // of the files as last read, guarded by reload
	live   atomic.Pointer[[]*tls.Certificate]
}

// stamp tells one state of a pair of files from another.
type stamp struct{ cert, key fileStamp }

type fileStamp struct {
	size     int64
	modified time.Time
	inode    uint64
}

// Open reads all pairs; each must be whole and its key must fit.
func Open(pairs []Pair, log *slog.Logger) (*Keyring, error) {
	if len(pairs) == 0 {
		return nil, errors.New("open certificates: none is configured")
	}
	k := &Keyring{pairs: pairs, log: log}
	if _, err := k.Reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the files again and, when all pairs are whole, shows them from the next handshake on. On any error the
// certificates in use stay: a half-written or expired replacement never takes TLS away. It tells how many pairs are new.
func (k *Keyring) Reload() (changed int, err error) {
	k.reload.Lock()
	defer k.reload.Unlock()
	return k.load()
}

func (k *Keyring) load() (changed int, err error) {
	fresh := make([]*tls.Certificate, len(k.pairs))
	stamps := make([]stamp, len(k.pairs))
	for i, p := range k.pairs {
		// The stamp is taken first: a file replaced between the two is then seen as changed at the next look.
		if stamps[i], err = stampOf(p); err != nil {
			return 0, fmt.Errorf("load certificate %s: %w", p.Cert, err)
		}
		if fresh[i], err = readPair(p); err != nil {
			return 0, err
		}
	}
	old := k.live.Load()
	for i := range fresh {
		if old == nil || !fresh[i].Leaf.Equal((*old)[i].Leaf) {
			changed++
		}
	}
	k.stamps = stamps
	k.live.Store(&fresh)
	return changed, nil
}

func readPair(p Pair) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w", p.Cert, p.Key, err)
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, fmt.Errorf("load certificate %s: %w", p.Cert, err)
		}
	}
	if _, ok := c.PrivateKey.(crypto.Signer); !ok {
		return nil, fmt.Errorf("load certificate %s: key %s can't sign", p.Cert, p.Key)
	}
	return &c, nil
}

func stampOf(p Pair) (stamp, error) {
	cert, err := os.Stat(p.Cert)
	if err != nil {
		return stamp{}, err
	}
	key, err := os.Stat(p.Key)
	if err != nil {
		return stamp{}, err
	}
	return stamp{fileStampOf(cert), fileStampOf(key)}, nil
}

func fileStampOf(fi fs.FileInfo) fileStamp {
	return fileStamp{size: fi.Size(), modified: fi.ModTime(), inode: inodeOf(fi)}
}

// Watch reloads the certificates when their files change, looking every interval, until ctx ends. A replacement that
// can't be used is logged once and tried again when the files change again.
func (k *Keyring) Watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.look()
		}
	}
}

// look reloads when a file differs from what was last read.
func (k *Keyring) look() {
	k.reload.Lock()
	defer k.reload.Unlock()
	now := make([]stamp, len(k.pairs))
	same := true
	for i, p := range k.pairs {
		s, err := stampOf(p)
		if err != nil {
			return // being replaced; the next look finds it
		}
		now[i] = s
		same = same && s == k.stamps[i]
	}
	if same {
		return
	}
	changed, err := k.load()
	if err != nil {
		k.stamps = now
		k.log.Error("changed certificate can't be used, the old one stays in use", "error", err)
		return
	}
	if changed > 0 {
		k.log.Info("certificates reloaded", "changed", changed, "expires", k.Certificates()[0].Leaf.NotAfter)
	}
}

// Certificates are those in use, in the order of the pairs. Do not change them.
func (k *Keyring) Certificates() []*tls.Certificate { return *k.live.Load() }

// GetCertificate chooses by the name that the client asks for; the first certificate serves a client that names none
// or an unknown one, as RFC 6066, section 3 allows: mail clients connect by many names, and they judge for themselves.
func (k *Keyring) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	all := k.Certificates()
	for _, c := range all {
		if hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return all[0], nil
}
