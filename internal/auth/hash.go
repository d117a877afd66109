package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// Parameters of new hashes: those that OWASP names for argon2id, about 25 ms on one core.
const (
	hashTime    = 2
	hashMemory  = 19 << 10 // KiB
	hashThreads = 1
	hashSalt    = 16
	hashKey     = 32
)

// Bounds of hashes that are taken over from elsewhere: what a sign-in may cost.
const (
	maxHashTime    = 10
	maxHashMemory  = 256 << 10 // KiB
	maxHashThreads = 8
	maxPHC         = 512
)

// phc is a parsed argon2id hash.
type phc struct {
	time, memory uint32
	threads      uint8
	salt, key    []byte
}

// HashPassword gives the argon2id hash of a password as a PHC string, with a fresh salt.
func HashPassword(password []byte) (string, error) { return hashPassword(rand.Reader, password) }

func hashPassword(random io.Reader, password []byte) (string, error) {
	if len(password) == 0 || len(password) > maxField || bytes.IndexByte(password, 0) >= 0 {
		return "", &PolicyError{Want: fmt.Sprintf("a password has 1 to %d octets and no NUL", maxField)}
	}
	salt := make([]byte, hashSalt)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("auth: read salt: %w", err)
	}
	prepared := prepare(password)
	defer clear(prepared)
	h := phc{time: hashTime, memory: hashMemory, threads: hashThreads, salt: salt, key: make([]byte, hashKey)}
	h.key = derive(h, prepared)
	return h.String(), nil
}

// CheckHash tells whether text is a PHC string that sign-ins can be checked against.
func CheckHash(text string) error {
	_, err := parsePHC(text)
	return err
}

// newDummy is a hash that costs what a real one costs and that no password has.
func newDummy(random io.Reader) (phc, error) {
	h := phc{time: hashTime, memory: hashMemory, threads: hashThreads, salt: make([]byte, hashSalt), key: make([]byte, hashKey)}
	if _, err := io.ReadFull(random, h.salt); err != nil {
		return phc{}, err
	}
	_, err := io.ReadFull(random, h.key)
	return h, err
}

func (h phc) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

func (h phc) matches(prepared []byte) bool {
	return subtle.ConstantTimeCompare(derive(h, prepared), h.key) == 1
}

// derive hashes a password with the parameters of h.
func derive(h phc, prepared []byte) []byte {
	return argon2.IDKey(prepared, h.salt, h.time, h.memory, h.threads, uint32(len(h.key)))
}

var errPHC = errors.New("auth: not an argon2id hash in PHC form")

// parsePHC reads "$argon2id$v=19$m=19456,t=2,p=1$salt$key". Parameters beyond the bounds are refused: they would let
// whoever wrote the hash choose what a sign-in costs.
func parsePHC(text string) (phc, error) {
	parts := strings.Split(text, "$")
	if len(text) > maxPHC || len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" ||
		parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return phc{}, errPHC
	}
	var h phc
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil ||
		parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, h.threads) {
		return phc{}, errPHC
	}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	h.key, err2 = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	switch {
	case err1 != nil || err2 != nil || strings.ContainsAny(text, "\r\n"):
		return phc{}, errPHC
	case h.time < 1 || h.time > maxHashTime, h.memory < 8 || h.memory > maxHashMemory, h.threads < 1 || h.threads > maxHashThreads:
		return phc{}, fmt.Errorf("%w: parameters out of bounds", errPHC)
	case len(h.salt) < 8 || len(h.salt) > 64, len(h.key) < 16 || len(h.key) > 64:
		return phc{}, fmt.Errorf("%w: salt or key out of bounds", errPHC)
	}
	return h, nil
}

// prepare gives a copy of a password in the form that is hashed: NFC, and every kind of space as U+0020 (RFC 8265,
// section 4.2.2), so that the same keys give the same password on every system. What isn't UTF-8 is taken as it is.
func prepare(password []byte) []byte {
	ascii := true
	for _, c := range password {
		ascii = ascii && c < utf8.RuneSelf
	}
	if ascii || !utf8.Valid(password) {
		return bytes.Clone(password)
	}
	spaced := bytes.Map(func(r rune) rune {
		if unicode.Is(unicode.Zs, r) {
			return ' '
		}
		return r
	}, password)
	if norm.NFC.IsNormal(spaced) {
		return spaced
	}
	defer clear(spaced)
	return norm.NFC.Bytes(spaced)
}
