package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	keySize   = 32 // AES-256
	checkSize = 3  // octets of checksum in a written master key
	// maxMasterText bounds what is read as a master key: some lines of comment and the key.
	maxMasterText = 16 << 10
	masterPrefix  = "WAXWING-MASTER-KEY-1"
)

// MasterID tells master keys apart. It follows from the key, and says nothing about it.
type MasterID [8]byte

func (id MasterID) String() string { return hex.EncodeToString(id[:]) }

// Master is a master key. It shows itself to nothing that prints or encodes: only Text gives it out.
type Master struct {
	secret [keySize]byte
	id     MasterID
	wrap   cipher.AEAD // wraps data keys
	sign   []byte      // signs the file of data keys
}

// NewMaster makes a master key from 32 octets of r.
func NewMaster(r io.Reader) (*Master, error) {
	var secret [keySize]byte
	if _, err := io.ReadFull(r, secret[:]); err != nil {
		return nil, fmt.Errorf("keyring: new master key: %w", err)
	}
	return newMaster(secret)
}

// newMaster derives from the secret what it is used for (HKDF, RFC 5869), so that no use tells of another.
func newMaster(secret [keySize]byte) (*Master, error) {
	m := &Master{secret: secret}
	id, err := m.derive("id", len(m.id))
	if err != nil {
		return nil, err
	}
	copy(m.id[:], id)
	if m.sign, err = m.derive("sign", sha256.Size); err != nil {
		return nil, err
	}
	key, err := m.derive("wrap", keySize)
	if err != nil {
		return nil, err
	}
	m.wrap, err = newAEAD(key)
	return m, err
}

func (m *Master) derive(use string, n int) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, m.secret[:], nil, "waxwing master key 1 "+use, n)
	if err != nil {
		return nil, fmt.Errorf("keyring: derive: %w", err)
	}
	return key, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return aead, nil
}

// ID names the key.
func (m Master) ID() MasterID { return m.id }

// Equal tells whether both are the same key.
func (m *Master) Equal(other *Master) bool {
	return subtle.ConstantTimeCompare(m.secret[:], other.secret[:]) == 1
}

// String names the key, and does not show it.
func (m Master) String() string { return "master key " + m.id.String() }

// Format keeps every verb of package fmt from showing the key.
func (m Master) Format(f fmt.State, _ rune) { fmt.Fprint(f, m.String()) }

// LogValue keeps package slog from showing the key.
func (m Master) LogValue() slog.Value { return slog.StringValue(m.String()) }

// MarshalJSON names the key, and does not show it.
func (m Master) MarshalJSON() ([]byte, error) { return []byte(`"` + m.String() + `"`), nil }

// Text is the key itself, in the form that ParseMaster reads: groups of letters and digits that can be copied by hand,
// the last ones a checksum.
func (m *Master) Text() string {
	text := base32.StdEncoding.EncodeToString(append(m.secret[:len(m.secret):len(m.secret)], masterCheck(m.secret)...))
	var b strings.Builder
	b.WriteString(masterPrefix)
	for i := 0; i < len(text); i += 4 {
		b.WriteByte('-')
		b.WriteString(text[i : i+4])
	}
	return b.String()
}

func masterCheck(secret [keySize]byte) []byte {
	sum := sha256.Sum256(append([]byte("waxwing master key check"), secret[:]...))
	return sum[:checkSize]
}

// Errors of ParseMaster. None of them shows what was read.
var (
	errMasterForm  = errors.New("it is no master key: not of the form " + masterPrefix + "-..., nor 64 hexadecimal digits, nor 32 octets in base64")
	errMasterCheck = errors.New("its checksum is wrong: a character was lost or mistaken")
)

// ParseMaster reads a master key: the form of Text, in any case and with spaces or line ends in any place; or, as
// commands of key management print it, 64 hexadecimal digits or 32 octets in base64. Lines that begin with # are
// comments.
func ParseMaster(text []byte) (*Master, error) {
	if len(text) > maxMasterText {
		return nil, errMasterForm
	}
	var plain []byte
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); !bytes.HasPrefix(line, []byte("#")) {
			plain = append(plain, line...)
		}
	}
	var secret [keySize]byte
	packed := strings.ToUpper(strings.NewReplacer("-", "", " ", "", "\t", "").Replace(string(plain)))
	if rest, ok := strings.CutPrefix(packed, strings.ReplaceAll(masterPrefix, "-", "")); ok {
		raw, err := base32.StdEncoding.DecodeString(rest)
		if err != nil || len(raw) != keySize+checkSize {
			return nil, errMasterForm
		}
		copy(secret[:], raw)
		if !bytes.Equal(raw[keySize:], masterCheck(secret)) {
			return nil, errMasterCheck
		}
		return newMaster(secret)
	}
	raw, err := hex.DecodeString(string(plain))
	if err != nil {
		raw, err = base64.StdEncoding.DecodeString(string(plain))
	}
	if err != nil || len(raw) != keySize {
		return nil, errMasterForm
	}
	copy(secret[:], raw)
	return newMaster(secret)
}
