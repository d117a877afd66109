package main

import (
	"fmt"
	"io"
	"path/filepath"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/server"
	"waxwing/internal/store/keyring"
)

type storeCommand struct {
	Verify storeVerify `cmd:"" help:"Compare everything that is stored with everything else, while the server runs."`
	Repair storeRepair `cmd:"" help:"Verify, and mend what can be mended."`

	Upgrade  storeUpgrade  `cmd:"" help:"Bring the store to this version of the program, as the start of the server does. The server must be stopped."`
	Rollback storeRollback `cmd:"" help:"Go back to the copy from before an upgrade: what came since is lost. The server must be stopped."`
	Copies   storeCopies   `cmd:"" help:"List or remove the copies from before upgrades."`
	Migrate  storeMigrate  `cmd:"" help:"Copy everything into the store of another waxwing.toml: to PostgreSQL and S3, or back. The server must be stopped."`

	Key keyCommand `cmd:"" help:"Look after the keys of encryption at rest."`
}

type keyCommand struct {
	List    keyList    `cmd:"" help:"List the data keys, and say whether a backup of the master key was confirmed."`
	Create  keyCreate  `cmd:"" help:"Begin to encrypt a store that has no keys. The server must be stopped."`
	Rotate  keyRotate  `cmd:"" help:"Encrypt with a new data key from now on; older messages follow in the background."`
	Rewrap  keyRewrap  `cmd:"" help:"Protect the data keys with a new master key."`
	Confirm keyConfirm `cmd:"" help:"Prove that a file is a backup of the master key, and note the day."`
	Sheet   keySheet   `cmd:"" help:"Print a recovery sheet: it shows the master key."`
}

type keyList struct{}

func (c *keyList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		keys, err := control.KeyList.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.printKeys(keys)
	})
}

func (s *session) printKeys(keys control.Keys) error {
	return s.print(keys, func(p *printer) {
		if !keys.On {
			p.line("messages are not encrypted")
			return
		}
		p.row("master key", keys.Master, "from "+keys.Source)
		p.row("backup", backupText(keys))
		p.line("")
		p.row("DATA KEY", "PURPOSE", "CREATED", "STATE", "BLOCKS AT MOST")
		for _, x := range keys.Keys {
			p.row(x.ID, x.Purpose, clock(x.Created), x.State, x.Blocks)
		}
		if keys.Left > 0 {
			p.line("")
			p.row("to be encrypted anew", "at most "+config.Size(keys.Left).Human(), "of "+config.Size(keys.Total).Human())
		}
	})
}

func backupText(keys control.Keys) string {
	if keys.Backup.IsZero() {
		return "none confirmed: `waxwing store key confirm FILE` proves one"
	}
	return "confirmed " + clock(keys.Backup)
}

type keyCreate struct{}

func (c *keyCreate) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	info, err := server.CreateKeys(s.ctx, cfg, false)
	if err != nil {
		return err
	}
	made := encryptionOf(info)
	return s.print(made, func(p *printer) {
		p.row("made", "data key "+info.Keys[0].ID.String()+" under master key "+made.Master)
		p.line("New messages are encrypted from the next start on; older ones follow in the background.")
		p.line("")
		printBackup(p, made, filepath.Dir(cfg.Path))
	})
}

type keyRotate struct {
	Wait bool `help:"Return when all messages are under the new key."`
}

func (c *keyRotate) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		keys, err := control.KeyRotate.Call(s.ctx, k, control.Rotate{Wait: c.Wait})
		if err != nil {
			return err
		}
		return s.printKeys(keys)
	})
}

type keyRewrap struct {
	NewKey string `help:"File with the new master key. Needed unless the key comes from a file, which then gets a new one made by the server." placeholder:"FILE" type:"path"`
}

func (c *keyRewrap) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		done, err := control.KeyRewrap.Call(s.ctx, k, control.Rewrap{File: c.NewKey})
		if err != nil {
			return err
		}
		return s.print(done, func(p *printer) {
			p.row("master key", done.New, "in place of "+done.Old)
			if done.Kept == "" {
				p.line("Its source must give the new key before the server starts again.")
			} else {
				p.line("The old one is kept in " + done.Kept + ": backups made until now need it. Delete it with the last of them.")
			}
			p.line("Back up the new key: no backup of it is confirmed.")
		})
	})
}

type keyConfirm struct {
	File string `arg:"" help:"The backup, on its own medium." type:"path"`
}

func (c *keyConfirm) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		keys, err := control.KeyConfirm.Call(s.ctx, k, control.KeyBackup{File: c.File})
		if err != nil {
			return err
		}
		return s.printKeys(keys)
	})
}

type keySheet struct{}

func (c *keySheet) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	sheet, err := server.RecoverySheet(s.ctx, cfg)
	if err != nil {
		return err
	}
	if s.json {
		return s.print(map[string]string{"sheet": sheet}, nil)
	}
	_, err = io.WriteString(s.out, sheet)
	return err
}

// encryption is what init and create say of the keys that they made. The key itself is not in it.
type encryption struct {
	Source string `json:"source"`
	File   string `json:"file,omitempty"`
	Master string `json:"master"` // id
	Backup string `json:"backup"` // what to do
}

// backupWords is what every administrator must know.
const backupWords = "Back up the master key now, away from this server and from the backups of its data: without it nobody can ever read the mail again."

func encryptionOf(info keyring.Info) encryption {
	return encryption{Source: info.Source.String(), File: info.Source.File, Master: info.Master.String(), Backup: backupWords}
}

// printBackup says what to do with a new master key.
func printBackup(p *printer, e encryption, dir string) {
	p.line("Messages are encrypted. " + backupWords)
	if e.File != "" {
		p.line("  the key:       " + e.File)
	}
	p.line(fmt.Sprintf("  on paper:      %s store key sheet --dir %s", program(), shellQuote(dir)))
	p.line(fmt.Sprintf("  prove a copy:  %s store key confirm FILE --dir %s", program(), shellQuote(dir)))
}
