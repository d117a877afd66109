package keyring

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The file of data keys is text, a line for each thing, in one order only:
//
//	waxwing-keys 1
//	store 0f1e2d3c4b5a6978
//	generation 3
//	master 8f3a1c5e7b902d46
//	backup 1763757982
//	swept 7f3a12cc
//	key 7f3a12cc mail 1763757982 1048576 <nonce, wrapped key and tag in base64>
//	mac <HMAC-SHA256 of all lines before, in base64>
//
// What parses is exactly what encode writes: there is one text for one meaning.
const (
	fileMagic   = "waxwing-keys 1"
	fileFamily  = "waxwing-keys "
	maxFile     = 1 << 20
	maxKeys     = 4096
	maxPurpose  = 64
	nonceSize   = 12
	tagSize     = 16
	wrappedSize = nonceSize + keySize + tagSize
)

// errFile says that octets are no file of data keys.
var errFile = errors.New("damaged")

// newer tells a file of a format to come. Such a format has a number of at least two digits, 10 being the next: no single
// flipped bit makes one of the other, so that damage to one copy is never taken for a newer file.
func newer(b []byte) bool {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	number, ok := bytes.CutPrefix(line, []byte(fileFamily))
	return ok && len(number) > 1 && len(number) < 6 && !bytes.ContainsFunc(number, func(r rune) bool { return r < '0' || r > '9' })
}

// entry is one data key, wrapped.
type entry struct {
	id      KeyID
	purpose string
	created int64 // seconds since 1970
	used    int64 // blocks that the key may have sealed, rounded up
	wrapped [wrappedSize]byte
}

// keyFile is the content of the file.
type keyFile struct {
	store      [8]byte // random: part of what each wrapped key is bound to
	generation int64   // counts the versions of the file
	master     MasterID
	backup     int64 // when a backup of the master key was last proved, seconds since 1970; 0 never
	swept      KeyID // the current key at the last walk that found all records under it; 0 none
	keys       []entry
}

// body is all lines but the last.
func (f *keyFile) body() []byte {
	b := fmt.Appendf(nil, "%s\nstore %x\ngeneration %d\nmaster %s\nbackup %d\nswept %s\n", fileMagic, f.store, f.generation, f.master, f.backup, f.swept)
	for i := range f.keys {
		e := &f.keys[i]
		b = fmt.Appendf(b, "key %s %s %d %d %s\n", e.id, e.purpose, e.created, e.used, base64.StdEncoding.EncodeToString(e.wrapped[:]))
	}
	return b
}

// encode is the whole file, signed.
func (f *keyFile) encode(m *Master) []byte {
	b := f.body()
	return fmt.Appendf(b, "mac %s\n", base64.StdEncoding.EncodeToString(signature(b, m)))
}

func signature(body []byte, m *Master) []byte {
	h := hmac.New(sha256.New, m.sign)
	h.Write(body)
	return h.Sum(nil)
}

// parsed is a file whose form is right. verify says whether a master key signed it.
type parsed struct {
	keyFile
	text []byte
	mac  []byte
}

func (p *parsed) verify(m *Master) bool {
	return p.master == m.id && hmac.Equal(p.mac, signature(p.text, m))
}

// parseFile reads a file. It checks the form alone: who signed it is for verify to say.
func parseFile(b []byte) (*parsed, error) {
	if newer(b) {
		return nil, ErrNewer
	}
	if len(b) > maxFile || len(b) == 0 || b[len(b)-1] != '\n' {
		return nil, errFile
	}
	cut := bytes.LastIndexByte(b[:len(b)-1], '\n') + 1
	p := &parsed{text: b[:cut]}
	mac, ok := strings.CutPrefix(strings.TrimSuffix(string(b[cut:]), "\n"), "mac ")
	if !ok {
		return nil, errFile
	}
	var err error
	if p.mac, err = base64.StdEncoding.Strict().DecodeString(mac); err != nil || len(p.mac) != sha256.Size {
		return nil, errFile
	}
	if err := p.parseBody(strings.Split(strings.TrimSuffix(string(p.text), "\n"), "\n")); err != nil {
		return nil, err
	}
	if !bytes.Equal(p.body(), p.text) {
		return nil, errFile // another spelling of the same
	}
	return p, nil
}

func (p *parsed) parseBody(lines []string) error {
	const head = 6
	if len(lines) < head || len(lines) > head+maxKeys || lines[0] != fileMagic {
		return errFile
	}
	fields := [head - 1]struct {
		name string
		read func(string) error
	}{
		{"store ", func(s string) error { return readHex(p.store[:], s) }},
		{"generation ", func(s string) error { return readCount(&p.generation, s) }},
		{"master ", func(s string) error { return readHex(p.master[:], s) }},
		{"backup ", func(s string) error { return readCount(&p.backup, s) }},
		{"swept ", func(s string) error { return readKeyID(&p.swept, s) }},
	}
	for i, f := range fields {
		value, ok := strings.CutPrefix(lines[i+1], f.name)
		if !ok || f.read(value) != nil {
			return errFile
		}
	}
	seen := make(map[KeyID]bool, len(lines)-head)
	for _, line := range lines[head:] {
		e, err := parseEntry(line)
		if err != nil || seen[e.id] {
			return errFile
		}
		seen[e.id] = true
		p.keys = append(p.keys, e)
	}
	return nil
}

func parseEntry(line string) (entry, error) {
	var e entry
	part := strings.Split(line, " ")
	if len(part) != 6 || part[0] != "key" || !validPurpose(part[2]) {
		return e, errFile
	}
	e.purpose = part[2]
	wrapped, err := base64.StdEncoding.Strict().DecodeString(part[5])
	if err != nil || len(wrapped) != wrappedSize {
		return e, errFile
	}
	copy(e.wrapped[:], wrapped)
	if err := errors.Join(readKeyID(&e.id, part[1]), readCount(&e.created, part[3]), readCount(&e.used, part[4])); err != nil || e.id == 0 {
		return e, errFile
	}
	return e, nil
}

// validPurpose tells what may stand as a purpose: lower case words, so that the key of a user may come to be "user:17".
func validPurpose(s string) bool {
	return s != "" && len(s) <= maxPurpose && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != ':' && r != '-'
	})
}

func readHex(dst []byte, s string) error {
	if len(s) != hex.EncodedLen(len(dst)) {
		return errFile
	}
	_, err := hex.Decode(dst, []byte(s))
	return err
}

func readCount(dst *int64, s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n >= 1<<62 {
		return errFile
	}
	*dst = n
	return nil
}

func readKeyID(dst *KeyID, s string) error {
	var b [4]byte
	if err := readHex(b[:], s); err != nil {
		return err
	}
	*dst = KeyID(b[0])<<24 | KeyID(b[1])<<16 | KeyID(b[2])<<8 | KeyID(b[3])
	return nil
}

// bound is what a wrapped key is bound to: with another store, id, purpose or date it does not open.
func (f *keyFile) bound(e *entry) []byte {
	return fmt.Appendf(nil, "waxwing data key 1\nstore %x\nkey %s %s %d\n", f.store, e.id, e.purpose, e.created)
}

// wrap seals a data key into its entry.
func (f *keyFile) wrap(e *entry, secret []byte, m *Master, nonce [nonceSize]byte) {
	copy(e.wrapped[:], nonce[:])
	m.wrap.Seal(e.wrapped[:nonceSize], nonce[:], secret, f.bound(e))
}

// unwrap opens the data key of an entry.
func (f *keyFile) unwrap(e *entry, m *Master) ([]byte, error) {
	secret, err := m.wrap.Open(nil, e.wrapped[:nonceSize], e.wrapped[nonceSize:], f.bound(e))
	if err != nil {
		return nil, fmt.Errorf("%w: data key %s can't be unwrapped", errFile, e.id)
	}
	return secret, nil
}

// clone copies what a change may touch.
func (f *keyFile) clone() keyFile {
	c := *f
	c.keys = append([]entry(nil), f.keys...)
	return c
}
