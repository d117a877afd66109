package backup

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Rows are kept as pieces, as contents are: a table is cut where the rows themselves say so, not at fixed counts, so that a
// row more or less changes one piece and the others are known from the last backup.
const (
	pieceMean = 256 << 10 // octets of a piece of rows, about
	pieceMost = 4 << 20
)

// The kinds of values of a row.
const (
	valueNull byte = iota
	valueInt
	valueText
	valueBytes
)

// appendRow writes the values of a row: nil, int64, string or []byte.
func appendRow(b []byte, row []any) ([]byte, error) {
	for i, v := range row {
		switch v := v.(type) {
		case nil:
			b = append(b, valueNull)
		case int64:
			b = binary.AppendVarint(append(b, valueInt), v)
		case string:
			b = binary.AppendUvarint(append(b, valueText), uint64(len(v)))
			b = append(b, v...)
		case []byte:
			b = binary.AppendUvarint(append(b, valueBytes), uint64(len(v)))
			b = append(b, v...)
		default:
			return nil, fmt.Errorf("column %d: a value of type %T", i, v)
		}
	}
	return b, nil
}

// parseRow reads a row of n columns and returns what follows. Text and octets are copies.
func parseRow(b []byte, n int) (row []any, rest []byte, err error) {
	row = make([]any, n)
	for i := range row {
		if len(b) == 0 {
			return nil, nil, fmt.Errorf("row: %w", errFormat)
		}
		kind := b[0]
		b = b[1:]
		switch kind {
		case valueNull:
		case valueInt:
			v, used := binary.Varint(b)
			if used <= 0 {
				return nil, nil, fmt.Errorf("row: %w", errFormat)
			}
			row[i], b = v, b[used:]
		case valueText, valueBytes:
			size, used := binary.Uvarint(b)
			if used <= 0 || size > uint64(len(b)-used) {
				return nil, nil, fmt.Errorf("row: %w", errFormat)
			}
			text := b[used : used+int(size)]
			if kind == valueText {
				row[i] = string(text)
			} else {
				row[i] = append([]byte{}, text...)
			}
			b = b[used+int(size):]
		default:
			return nil, nil, fmt.Errorf("row: a value of kind %d: %w", kind, errFormat)
		}
	}
	return row, b, nil
}

// cut says whether a piece ends behind this row: by chance, which the octets of the row decide, so that each octet ends
// one in pieceMean times.
func cut(row []byte, piece int) bool {
	if piece >= pieceMost {
		return true
	}
	return uint64(crc32.ChecksumIEEE(row)) < uint64(len(row))<<32/pieceMean
}
