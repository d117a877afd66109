package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/server"
)

type storeMigrate struct {
	To          string `required:"" help:"Directory whose waxwing.toml names the store that takes everything: empty, with a data directory of its own." placeholder:"DIR" type:"path"`
	KeepDamaged bool   `help:"Go on when the octets of a message are damaged: it moves without them. Otherwise that ends the command."`
}

// moved is what the command prints.
type moved struct {
	From       string      `json:"from"`
	To         string      `json:"to"`
	Encryption *encryption `json:"encryption,omitempty"` // of the target, while no backup of its master key was confirmed
	server.Migrated
	Next string `json:"next"`
}

func (c *storeMigrate) Run(s *session) error {
	from, err := s.config()
	if err != nil {
		return err
	}
	to, err := config.Load(filepath.Join(c.To, config.FileName))
	if errors.Is(err, os.ErrNotExist) {
		return control.Errorf(control.NotFound, "%s holds no %s: copy that of %s there and let it name the other store", c.To, config.FileName, filepath.Dir(from.Path))
	}
	if err != nil {
		return err
	}
	p := s.migrateProgress()
	done, err := server.Migrate(s.ctx, from, to, server.MigrateOptions{KeepDamaged: c.KeepDamaged, Progress: p.show, Log: s.logger()})
	p.end()
	if err != nil {
		if kind := control.KindOf(err); kind == control.Failed || kind == control.Unavailable {
			s.say("Nothing is lost in %s. The same command goes on from where it was.", filepath.Dir(from.Path))
		}
		return unavailable(fullDisk(to, err))
	}
	out := moved{From: filepath.Dir(from.Path), To: filepath.Dir(to.Path), Migrated: done}
	out.Next = fmt.Sprintf("%s serve --dir %s", program(), shellQuote(out.To))
	if done.Keys != nil {
		e := encryptionOf(*done.Keys)
		out.Encryption = &e
	}
	return s.print(out, func(p *printer) { showMoved(p, out) })
}

func showMoved(p *printer, m moved) {
	p.row("moved", fmt.Sprintf("%d contents, %s; %d rows", m.Contents, config.Size(m.Octets).Human(), m.Rows))
	p.row("compared", "every row and every content", "digest of the rows "+m.Digest)
	if m.Lost > 0 {
		p.row("damaged", fmt.Sprintf("%d contents have no octets in the target", m.Lost))
		for _, d := range m.Damaged {
			p.row("  content", d.ID, d.Reason)
		}
	}
	p.line("")
	if m.Encryption != nil {
		printBackup(p, *m.Encryption, m.To)
		p.line("")
	}
	p.line("From now on start the server from its new directory, and never from the old one: mail that it took would be missing here.")
	p.line("  " + m.Next)
	p.line("When all is well, make a backup, and remove " + m.From + ".")
}

// migrateShow shows how far a migration is: as lines for people, or as lines of JSON on standard error.
type migrateShow struct {
	s     *session
	p     *progress
	phase server.Phase
	last  time.Time
}

func (s *session) migrateProgress() *migrateShow { return &migrateShow{s: s, p: s.progress("", 0)} }

func (m *migrateShow) show(at server.MigrateProgress) {
	if !m.s.json {
		m.p.about(string(at.Phase), at.Done, at.Total)
		return
	}
	if at.Phase == m.phase && time.Since(m.last) < time.Second {
		return
	}
	m.phase, m.last = at.Phase, time.Now()
	if line, err := json.Marshal(at); err == nil {
		fmt.Fprintln(m.s.talk, string(line))
	}
}

func (m *migrateShow) end() { m.p.end() }
