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

func (c *sievePut) Run(s *session) error {
	in := s.in
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return usageError{err}
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxScriptFile))
	if err != nil {
		return fmt.Errorf("read %s: %w", c.File, err)
	}
	return s.with(func(k control.Carrier) error {
		x := control.SieveScript{SieveRef: control.SieveRef{Address: c.Address, Name: c.Name}, Text: string(text)}
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
