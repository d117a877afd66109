package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"waxwing/internal/address"
	"waxwing/internal/auth"
	"waxwing/internal/control"
)

type accountImport struct {
	File      string `arg:"" help:"CSV file: address,password,name,quota; - is standard input. A first line of these names is passed over."`
	KeepGoing bool   `help:"Make the accounts whose lines are right, although others are wrong. Otherwise all are made or none."`
}

// Bounds on one import.
const (
	maxImportRows  = 100_000
	maxImportOne   = 10_000 // accounts that one transaction makes
	keepGoingBatch = 500
)

// importRow is one line of the file.
type importRow struct {
	line     int
	account  control.NewAccount
	owner    address.Address
	password []byte
}

// lineError is what is wrong with one line.
type lineError struct {
	Line  int    `json:"line"`
	Error string `json:"error"`
}

// imported is what the command prints.
type imported struct {
	Made   int         `json:"made"`
	Errors []lineError `json:"errors,omitempty"`
}

func (c *accountImport) Run(s *session) error {
	rows, bad, err := c.read(s)
	if err != nil {
		return err
	}
	if len(bad) > 0 && !c.KeepGoing {
		return s.refuseImport(imported{Errors: bad})
	}
	if len(rows) > maxImportOne && !c.KeepGoing {
		return usagef("%d accounts are more than the %d that can be made all or none: split the file, or use --keep-going", len(rows), maxImportOne)
	}
	return s.with(func(k control.Carrier) error {
		if err := s.hashRows(rows); err != nil {
			return err
		}
		result := imported{Errors: bad}
		var err error
		if c.KeepGoing {
			err = s.importBatches(k, rows, &result)
		} else {
			err = s.importWhole(k, rows, &result)
		}
		if err != nil {
			return err
		}
		if len(result.Errors) > 0 {
			return s.refuseImport(result)
		}
		return s.print(result, func(p *printer) { p.row(result.Made, "accounts made") })
	})
}

// refuseImport prints what is wrong with each line; the exit code tells that not all was done.
func (s *session) refuseImport(r imported) error {
	slices.SortFunc(r.Errors, func(a, b lineError) int { return a.Line - b.Line })
	err := s.print(r, func(p *printer) {
		for _, e := range r.Errors {
			p.line(fmt.Sprintf("line %d: %s", e.Line, plain(e.Error)))
		}
		p.line(fmt.Sprintf("%d accounts made, %d lines wrong", r.Made, len(r.Errors)))
	})
	return errors.Join(err, quietError{exitUsage})
}

// read reads and checks the file; lines that are wrong come back apart.
func (c *accountImport) read(s *session) ([]importRow, []lineError, error) {
	in := s.in
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, nil, control.Errorf(control.NotFound, "import accounts: %w", err)
		}
		defer f.Close()
		in = f
	}
	buffered := bufio.NewReader(in)
	if bom, err := buffered.Peek(3); err == nil && string(bom) == "\uFEFF" {
		_, _ = buffered.Discard(3) // just peeked at
	}
	r := csv.NewReader(buffered)
	r.FieldsPerRecord = -1
	r.TrimLeadingSpace = true
	var rows []importRow
	var bad []lineError
	seen := map[string]int{}
	for first := true; ; first = false {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return rows, bad, nil
		}
		var parse *csv.ParseError
		if errors.As(err, &parse) {
			// A quotation that is out of step makes nonsense of all that follows.
			return nil, nil, usagef("%s: line %d: %v", c.File, parse.Line, parse.Err)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("import accounts: %w", err)
		}
		line, _ := r.FieldPos(0)
		if first && strings.EqualFold(fields[0], "address") {
			continue
		}
		if len(rows) == maxImportRows {
			return nil, nil, usagef("%s has more than %d accounts", c.File, maxImportRows)
		}
		row, err := parseRow(fields)
		if err == nil {
			if earlier, dup := seen[row.owner.Key()]; dup {
				err = fmt.Errorf("%s stands in line %d already", row.owner, earlier)
			}
			seen[row.owner.Key()] = line
		}
		if err != nil {
			bad = append(bad, lineError{line, err.Error()})
			continue
		}
		row.line = line
		rows = append(rows, row)
	}
}

func parseRow(fields []string) (importRow, error) {
	if len(fields) < 2 || len(fields) > 4 {
		return importRow{}, fmt.Errorf("%d fields: address,password,name,quota are wanted", len(fields))
	}
	fields = append(fields, "", "")
	owner, err := address.Parse(strings.TrimSpace(fields[0]))
	if err != nil {
		return importRow{}, err
	}
	quota, err := parseQuota(strings.TrimSpace(fields[3]))
	if err != nil {
		return importRow{}, err
	}
	row := importRow{owner: owner, account: control.NewAccount{Address: owner.String(), Name: strings.TrimSpace(fields[2]), QuotaBytes: quota}}
	if strings.HasPrefix(fields[1], "$argon2id$") {
		// Taken over from another server as a hash.
		if err := auth.CheckHash(fields[1]); err != nil {
			return importRow{}, err
		}
		row.account.PasswordHash = fields[1]
		return row, nil
	}
	row.password = []byte(fields[1])
	return row, checkNew(owner, row.password)
}

// hashRows hashes the passwords on all cores and wipes them.
func (s *session) hashRows(rows []importRow) error {
	group, ctx := errgroup.WithContext(s.ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	progress := s.progress("hashing passwords", int64(len(rows)))
	var done atomic.Int64
	for i := range rows {
		if rows[i].password == nil {
			continue
		}
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var err error
			rows[i].account.PasswordHash, err = auth.HashPassword(rows[i].password)
			clear(rows[i].password)
			progress.set(done.Add(1))
			return err
		})
	}
	err := group.Wait()
	progress.end()
	return err
}

// importWhole makes all accounts in one transaction.
func (s *session) importWhole(k control.Carrier, rows []importRow, result *imported) error {
	if len(rows) == 0 {
		return nil
	}
	made, err := control.AccountAdd.Call(s.ctx, k, batchOf(rows))
	if at := blamed(err, rows); at >= 0 {
		result.Errors = append(result.Errors, lineError{rows[at].line, err.Error()})
		return nil
	}
	result.Made = len(made.Accounts)
	return err
}

// importBatches makes accounts in batches; one that is refused is noted, and the rest of its batch tried again.
func (s *session) importBatches(k control.Carrier, rows []importRow, result *imported) error {
	progress := s.progress("making accounts", int64(len(rows)))
	defer progress.end()
	for len(rows) > 0 {
		batch := rows[:min(len(rows), keepGoingBatch)]
		rows = rows[len(batch):]
		for len(batch) > 0 {
			made, err := control.AccountAdd.Call(s.ctx, k, batchOf(batch))
			at := blamed(err, batch)
			if at < 0 {
				if err != nil {
					return err
				}
				result.Made += len(made.Accounts)
				break
			}
			result.Errors = append(result.Errors, lineError{batch[at].line, err.Error()})
			batch = append(append([]importRow(nil), batch[:at]...), batch[at+1:]...)
		}
		progress.set(int64(result.Made))
	}
	return nil
}

func batchOf(rows []importRow) control.NewAccounts {
	req := control.NewAccounts{Accounts: make([]control.NewAccount, len(rows))}
	for i, r := range rows {
		req.Accounts[i] = r.account
	}
	return req
}

// blamed is the index of the entry that an error is about, -1 when it is about none.
func blamed(err error, rows []importRow) int {
	var e *control.Error
	if errors.As(err, &e) && e.Index != nil && *e.Index >= 0 && *e.Index < len(rows) {
		return *e.Index
	}
	return -1
}
