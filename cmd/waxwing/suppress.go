package main

import (
	"encoding/csv"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"waxwing/internal/control"
)

type queueSuppress struct {
	List   suppressList   `cmd:"" help:"List addresses that nothing is sent to."`
	Add    suppressAdd    `cmd:"" help:"Send nothing to an address any more."`
	Remove suppressRemove `cmd:"" help:"Send to an address again."`
	Export suppressExport `cmd:"" help:"Write them as CSV: address, sender domain, since, expires, failures, reason."`
	Import suppressImport `cmd:"" help:"Read addresses from CSV, as export writes it; all but the address may be missing."`
}

// eachSuppressed reads all.
func eachSuppressed(s *session, k control.Carrier, counted bool, fn func(control.Suppressed) error) error {
	req := control.SuppressPage{Counted: counted}
	for {
		page, err := control.SuppressList.Call(s.ctx, k, req)
		if err != nil {
			return err
		}
		for _, x := range page.Addresses {
			if err := fn(x); err != nil {
				return err
			}
			req.After = x
		}
		if !page.More {
			return nil
		}
	}
}

type suppressList struct {
	Counted bool `help:"Also those whose failures are only counted so far."`
}

func (c *suppressList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		all := []control.Suppressed{}
		err := eachSuppressed(s, k, c.Counted, func(x control.Suppressed) error {
			all = append(all, x)
			return nil
		})
		if err != nil {
			return err
		}
		return s.print(all, func(p *printer) {
			p.row("ADDRESS", "MAIL OF", "SINCE", "EXPIRES", "FAILURES", "REASON")
			for _, x := range all {
				p.row(x.Address, x.Sender, clock(x.Since), clock(x.Expires), x.Failures, shorten(x.Reason, 60))
			}
		})
	})
}

type suppressAdd struct {
	Address string        `arg:"" help:"The address."`
	Sender  string        `help:"Only mail of senders of this domain." placeholder:"DOMAIN"`
	Reason  string        `help:"Stands in the reports." default:"by an administrator"`
	For     time.Duration `help:"For how long; as the settings say when it is not given." placeholder:"720h"`
}

func (c *suppressAdd) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		x := control.Suppressed{Address: c.Address, Sender: c.Sender, Reason: c.Reason}
		if c.For > 0 {
			x.Expires = time.Now().Add(c.For)
		}
		if _, err := control.SuppressAdd.Call(s.ctx, k, control.SuppressedList{Addresses: []control.Suppressed{x}}); err != nil {
			return err
		}
		return s.print(x, func(p *printer) { p.row("suppressed", c.Address) })
	})
}

type suppressRemove struct {
	Address string `arg:"" help:"The address."`
	Sender  string `help:"Of the entry for this domain of senders." placeholder:"DOMAIN"`
}

func (c *suppressRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		x := control.Suppressed{Address: c.Address, Sender: c.Sender}
		if _, err := control.SuppressRemove.Call(s.ctx, k, x); err != nil {
			return err
		}
		return s.print(x, func(p *printer) { p.row("removed", c.Address) })
	})
}

type suppressExport struct{}

func (c *suppressExport) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		w := csv.NewWriter(s.out)
		err := eachSuppressed(s, k, false, func(x control.Suppressed) error {
			return w.Write([]string{x.Address, x.Sender, x.Since.Format(time.RFC3339), x.Expires.Format(time.RFC3339), strconv.Itoa(x.Failures), x.Reason})
		})
		w.Flush()
		return errors.Join(err, w.Error())
	})
}

type suppressImport struct {
	File string `arg:"" help:"The file; - for standard input."`
}

// importStep is how many addresses one operation takes.
const importStep = 1000

func (c *suppressImport) Run(s *session) error {
	in := s.in
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	r := csv.NewReader(in)
	r.FieldsPerRecord = -1
	return s.with(func(k control.Carrier) error {
		total := 0
		var batch []control.Suppressed
		send := func() error {
			if len(batch) == 0 {
				return nil
			}
			_, err := control.SuppressAdd.Call(s.ctx, k, control.SuppressedList{Addresses: batch})
			if err == nil {
				total += len(batch)
				batch = nil
			}
			return err
		}
		for {
			fields, err := r.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return usageError{err}
			}
			x, err := readSuppressed(fields)
			if err != nil {
				line, _ := r.FieldPos(0)
				return usagef("line %d: %w", line, err)
			}
			if batch = append(batch, x); len(batch) == importStep {
				if err := send(); err != nil {
					return err
				}
			}
		}
		if err := send(); err != nil {
			return err
		}
		return s.print(map[string]int{"imported": total}, func(p *printer) { p.row("imported", total) })
	})
}

func readSuppressed(fields []string) (control.Suppressed, error) {
	f := append(fields, make([]string, 6)...)
	x := control.Suppressed{Address: f[0], Sender: f[1], Reason: f[5]}
	for _, t := range []struct {
		text string
		to   *time.Time
	}{{f[2], &x.Since}, {f[3], &x.Expires}} {
		if t.text == "" {
			continue
		}
		var err error
		if *t.to, err = time.Parse(time.RFC3339, t.text); err != nil {
			return x, err
		}
	}
	return x, nil
}
