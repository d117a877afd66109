package sieveserver

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"waxwing/internal/sieve"
	"waxwing/internal/store"
)

// command is a row of the table from which commands are run.
type command struct {
	name        string
	states      states
	least, most int                                   // arguments
	script      bool                                  // has a script as an argument
	run         func(s *session, args []string) error // sends its OK itself; a refusal or an error is answered by the caller
}

// commands are those of RFC 5804, section 2.
var commands []command

func init() { // CAPABILITY is told from the table too
	commands = []command{
		{name: "AUTHENTICATE", states: stranger, least: 1, most: 2, run: (*session).authenticate},
		{name: "STARTTLS", states: stranger, run: (*session).startTLS},
		{name: "LOGOUT", states: anyState, run: (*session).logout},
		{name: "CAPABILITY", states: anyState, run: (*session).capability},
		{name: "HAVESPACE", states: user, least: 2, most: 2, run: (*session).haveSpace},
		{name: "PUTSCRIPT", states: user, least: 2, most: 2, script: true, run: (*session).putScript},
		{name: "LISTSCRIPTS", states: user, run: (*session).listScripts},
		{name: "SETACTIVE", states: user, least: 1, most: 1, run: (*session).setActive},
		{name: "GETSCRIPT", states: user, least: 1, most: 1, run: (*session).getScript},
		{name: "DELETESCRIPT", states: user, least: 1, most: 1, run: (*session).deleteScript},
		{name: "RENAMESCRIPT", states: user, least: 2, most: 2, run: (*session).renameScript},
		{name: "CHECKSCRIPT", states: user, least: 1, most: 1, script: true, run: (*session).checkScript},
		{name: "NOOP", states: anyState, most: 1, run: (*session).noop},
		{name: "UNAUTHENTICATE", states: user, run: (*session).unauthenticate},
	}
}

// lookup finds the row of a keyword, in any case.
func lookup(word string) *command {
	for i := range commands {
		if strings.EqualFold(commands[i].name, word) {
			return &commands[i]
		}
	}
	return nil
}

// capabilities sends what RFC 5804, section 1.7, lists.
func (s *session) capabilities() {
	tell := func(name, value string) { s.put(quote(name), " ", quote(value), "\r\n") }
	_, encrypted := s.conn.TLS()
	tell("IMPLEMENTATION", "Waxwing") // versions help attackers only
	tell("SASL", strings.Join(s.srv.opt.Auth.Mechanisms(encrypted), " "))
	tell("SIEVE", strings.Join(sieve.Extensions(), " "))
	tell("NOTIFY", strings.Join(sieve.NotifyMethods(), " "))
	tell("MAXREDIRECTS", strconv.Itoa(s.srv.opt.Settings().SieveRedirects))
	if !encrypted && s.srv.opt.TLS != nil {
		s.put("\"STARTTLS\"\r\n")
	}
	s.put("\"UNAUTHENTICATE\"\r\n")
	if s.identity != nil {
		tell("OWNER", s.identity.Address.String())
	}
	tell("VERSION", "1.0")
}

func (s *session) capability([]string) error {
	s.capabilities()
	s.ok("", "Capability completed")
	return nil
}

func (s *session) logout([]string) error {
	s.ending = true
	s.ok("", "Bye")
	return nil
}

// noop is NOOP, RFC 5804, section 2.13.
func (s *session) noop(args []string) error {
	code := ""
	if len(args) > 0 {
		code = "(TAG " + quote(args[0]) + ") "
	}
	s.ok(code, "Done")
	return nil
}

// unauthenticate is UNAUTHENTICATE, RFC 5804, section 2.14.1. Such a session gets no more octets or tries than one.
func (s *session) unauthenticate([]string) error {
	s.state, s.identity = stranger, nil
	s.log = s.srv.opt.Logger.With("protocol", "managesieve", "peer", s.conn.RemoteAddr().String())
	s.timer.Reset(s.srv.opt.Limits.TimeBefore)
	s.ok("", "Log in again")
	return nil
}

// scriptName refuses what can name no script.
func scriptName(name string) error {
	if what := sieve.CheckName(name); what != "" {
		return refuse(what)
	}
	return nil
}

// answer makes refusals of errors of the store that a client runs into.
func answer(err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refuseFair("(NONEXISTENT) ", "There is no script of that name")
	case errors.Is(err, store.ErrExists):
		return refuseFair("(ALREADYEXISTS) ", "There is a script of that name")
	case errors.Is(err, store.ErrActive):
		return refuseFair("(ACTIVE) ", "The active script can't be deleted")
	case errors.Is(err, store.ErrLimit):
		return refuseFair("(QUOTA/MAXSCRIPTS) ", "Too many scripts")
	case errors.Is(err, store.ErrOverQuota):
		return refuseFair("(QUOTA/MAXSIZE) ", "The script is too large")
	}
	return err
}

// done answers a command that changed something.
func (s *session) done(err error, text string) error {
	if err != nil {
		return answer(err)
	}
	s.ok("", text)
	return nil
}

func (s *session) haveSpace(args []string) error {
	octets, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return errSyntax
	}
	if err := scriptName(args[0]); err != nil {
		return err
	}
	set := s.srv.opt.Settings()
	return s.done(s.srv.opt.Store.CheckSieveRoom(s.ctx, s.identity.Account, args[0], int64(octets), set.SieveLimits()), "There is room")
}

// compile checks a script; a mistake is told with its place.
func (s *session) compile(text string) error {
	if _, err := sieve.Compile([]byte(text), s.srv.opt.Settings().SieveOptions()); err != nil {
		return refuseFair("", err.Error())
	}
	return nil
}

func (s *session) putScript(args []string) error {
	if err := scriptName(args[0]); err != nil {
		return err
	}
	if err := s.compile(args[1]); err != nil {
		return err
	}
	// What the client was told of is done, also when it leaves now.
	ctx := context.WithoutCancel(s.ctx)
	return s.done(s.srv.opt.Store.PutSieve(ctx, s.identity.Account, args[0], []byte(args[1]), s.srv.opt.Settings().SieveLimits()), "Stored")
}

func (s *session) checkScript(args []string) error {
	if err := s.compile(args[0]); err != nil {
		return err
	}
	s.ok("", "The script is valid")
	return nil
}

func (s *session) listScripts([]string) error {
	list, err := s.srv.opt.Store.SieveScripts(s.ctx, s.identity.Account)
	if err != nil {
		return err
	}
	for _, x := range list {
		s.put(quote(x.Name))
		if x.Active {
			s.put(" ACTIVE")
		}
		s.put("\r\n")
	}
	s.ok("", "Listed")
	return nil
}

func (s *session) getScript(args []string) error {
	text, err := s.srv.opt.Store.SieveText(s.ctx, s.identity.Account, args[0])
	if err != nil {
		return answer(err)
	}
	s.put("{", strconv.Itoa(len(text)), "}\r\n", string(text), "\r\n")
	s.ok("", "Sent")
	return nil
}

func (s *session) setActive(args []string) error {
	ctx := context.WithoutCancel(s.ctx)
	return s.done(s.srv.opt.Store.ActivateSieve(ctx, s.identity.Account, args[0]), "Set")
}

func (s *session) deleteScript(args []string) error {
	ctx := context.WithoutCancel(s.ctx)
	return s.done(s.srv.opt.Store.DeleteSieve(ctx, s.identity.Account, args[0]), "Deleted")
}

func (s *session) renameScript(args []string) error {
	if err := scriptName(args[1]); err != nil {
		return err
	}
	ctx := context.WithoutCancel(s.ctx)
	return s.done(s.srv.opt.Store.RenameSieve(ctx, s.identity.Account, args[0], args[1]), "Renamed")
}
