package main

import (
	"fmt"
	"io"
	"os"

	"waxwing/internal/control"
)

type sieveCommand struct {
	List     sieveList     `cmd:"" help:"List the scripts of an account."`
	Show     sieveShow     `cmd:"" help:"Print a script."`
	Check    sieveCheck    `cmd:"" help:"Check a script without storing it."`
	Put      sievePut      `cmd:"" help:"Check and store a script."`
	Activate sieveActivate `cmd:"" help:"Make a script the one that is run; without a name, none."`
	Delete   sieveDelete   `cmd:"" help:"Delete a script that is not active."`
}

type sieveList struct {
	Address string `arg:"" help:"The account."`
}

func (c *sieveList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.SieveList.Call(s.ctx, k, control.SieveRef{Address: c.Address})
		if err != nil {
			return err
		}
		return s.print(list, func(p *printer) {
			for _, x := range list {
				state := ""
				if x.Active {
					state = "active"
				}
				p.row(x.Name, x.Size, state, x.Changed.Format("2006-01-02 15:04"))
			}
		})
	})
}

type sieveShow struct {
	Address string `arg:"" help:"The account."`
	Name    string `arg:"" help:"The script."`
}

func (c *sieveShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		x, err := control.SieveShow.Call(s.ctx, k, control.SieveRef{Address: c.Address, Name: c.Name})
		if err != nil {
			return err
		}
		if s.json {
			return s.print(x, nil)
		}
		_, err = io.WriteString(s.out, x.Text)
		return err
	})
}

type sievePut struct {
	Address string `arg:"" help:"The account."`
	Name    string `arg:"" help:"The script."`
	File    string `arg:"" help:"File with its text; - is standard input."`
}

// maxScriptFile is more than any script may have.
const maxScriptFile = 2 << 20

// script reads a script from a file or from standard input.
func (s *session) script(file string) (string, error) {
	in := s.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", usageError{err}
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxScriptFile))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	return string(text), nil
}

type sieveCheck struct {
	File string `arg:"" help:"File with its text; - is standard input."`
}

func (c *sieveCheck) Run(s *session) error {
	text, err := s.script(c.File)
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		r, err := control.SieveCheck.Call(s.ctx, k, control.SieveScript{Text: text})
		if err != nil {
			return err
		}
		return s.print(r, func(p *printer) { p.row("sound", fmt.Sprintf("%d octets", r.Size)) })
	})
}

func (c *sievePut) Run(s *session) error {
	text, err := s.script(c.File)
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		x := control.SieveScript{SieveRef: control.SieveRef{Address: c.Address, Name: c.Name}, Text: text}
		r, err := control.SievePut.Call(s.ctx, k, x)
		if err != nil {
			return err
		}
		return s.print(r, func(p *printer) { p.row("stored", r.Name) })
	})
}

type sieveActivate struct {
	Address string `arg:"" help:"The account."`
	Name    string `arg:"" optional:"" help:"The script; none when it is left out."`
}

func (c *sieveActivate) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		r, err := control.SieveActivate.Call(s.ctx, k, control.SieveRef{Address: c.Address, Name: c.Name})
		if err != nil {
			return err
		}
		return s.print(r, func(p *printer) { p.row("active", r.Name) })
	})
}

type sieveDelete struct {
	Address string `arg:"" help:"The account."`
	Name    string `arg:"" help:"The script."`
}

func (c *sieveDelete) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		r, err := control.SieveDelete.Call(s.ctx, k, control.SieveRef{Address: c.Address, Name: c.Name})
		if err != nil {
			return err
		}
		return s.print(r, func(p *printer) { p.row("deleted", r.Name) })
	})
}
