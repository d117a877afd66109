package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A Summary is one value in its row: a format number, CRC-32C over the rest, then the fields. So it is read with one
// column, and damage is seen.
const summaryFormat = 1

// maxReferences bounds the references that are kept: the oldest one and the newest.
const maxReferences = 100

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errSummary = errors.New("summary can't be decoded")

// appendSummary adds the stored form of a Summary to b.
func appendSummary(b []byte, m *Summary) []byte {
	start := len(b)
	b = append(b, summaryFormat, 0, 0, 0, 0)
	b = binary.AppendVarint(b, m.HeaderSize)
	b = binary.AppendVarint(b, sentSeconds(m.SentAt))
	attachments := byte(0)
	if m.Attachments {
		attachments = 1
	}
	b = append(b, attachments)
	b = appendText(b, m.Envelope)
	b = appendText(b, m.BodyStructure)
	b = appendText(b, m.MessageID)
	b = appendText(b, m.BaseSubject)
	b = appendText(b, m.Preview)
	refs := m.References
	if len(refs) > maxReferences {
		refs = append(refs[:1:1], refs[len(refs)-maxReferences+1:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(refs)))
	for _, r := range refs {
		b = appendText(b, r)
	}
	sealSummary(b[start:])
	return b
}

// sealSummary writes the checksum.
func sealSummary(b []byte) {
	binary.LittleEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
}

func appendText[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// noDate stands for a message without a date.
const noDate = -1 << 62

func sentSeconds(t time.Time) int64 {
	if t.IsZero() {
		return noDate
	}
	return t.Unix()
}

// decodeSummary fills m. Envelope and BodyStructure share memory with b, the rest does not.
func decodeSummary(b []byte, m *Summary) error {
	if len(b) < 5 || b[0] != summaryFormat || binary.LittleEndian.Uint32(b[1:]) != crc32.Checksum(b[5:], castagnoli) {
		return fmt.Errorf("%w: %w: checksum", ErrCorrupt, errSummary)
	}
	d := summaryDecoder{b: b[5:]}
	m.HeaderSize = d.varint()
	m.SentAt = time.Time{}
	if sent := d.varint(); sent != noDate {
		m.SentAt = time.Unix(sent, 0).UTC()
	}
	m.Attachments = d.byte() != 0
	m.Envelope = d.text()
	m.BodyStructure = d.text()
	m.MessageID = string(d.text())
	m.BaseSubject = string(d.text())
	m.Preview = string(d.text())
	m.References = m.References[:0:0]
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		m.References = append(m.References, string(d.text()))
	}
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: %w: length", ErrCorrupt, errSummary)
	}
	return nil
}

// summaryDecoder takes fields from the front of b; bad is set once one is not whole.
type summaryDecoder struct {
	b   []byte
	bad bool
}

func (d *summaryDecoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.skip(n)
	return v
}

func (d *summaryDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.skip(n)
	return v
}

func (d *summaryDecoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *summaryDecoder) skip(n int) {
	if n <= 0 {
		d.bad, d.b = true, nil
		return
	}
	d.b = d.b[n:]
}

func (d *summaryDecoder) text() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	t := d.b[:n:n]
	d.b = d.b[n:]
	return t
}

// ReadSummary decodes a Summary as the table of messages has it. It shares memory with b.
func ReadSummary(b []byte) (m Summary, err error) {
	err = decodeSummary(b, &m)
	return m, err
}
