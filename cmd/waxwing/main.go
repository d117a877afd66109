// Command waxwing is a secure mail server: SMTP in and out, submission, IMAP and POP3 in one program, and the commands
// that look after it.
//
// This package parses command lines and prints; it decides nothing. What a command does is an operation of package
// control, which the running server carries out, or this process while the server is stopped.
//
// Data goes to standard output, talk to standard error. Passwords are never arguments. The exit codes are:
//
//	0  done
//	1  failed
//	2  the command line, a file or a value in it can't be right
//	3  what it is about isn't there
//	4  it is there already, or changed meanwhile
//	5  the server, the store or the disk can't be reached or refuses now
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/directory"
)

// The exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitUnavailable = 5
)

// commandLine is all commands. Flags of the top may stand behind any command.
type commandLine struct {
	Dir  string `help:"Directory of the server: waxwing.toml stands in it. By default the current directory; for demo, ./demo." placeholder:"DIR" type:"path"`
	JSON bool   `help:"Print JSON on standard output, errors as JSON on standard error."`

	Demo     demoCommand    `cmd:"" help:"Run a working server on loopback with two accounts and sample mail."`
	Init     initCommand    `cmd:"" help:"Make the directory of a new server."`
	Serve    serveCommand   `cmd:"" help:"Run the server."`
	Account  accountCommand `cmd:"" help:"Look after accounts."`
	Domain   domainCommand  `cmd:"" help:"Look after domains."`
	Alias    aliasCommand   `cmd:"" help:"Look after aliases: addresses that lead to others."`
	Forward  forwardCommand `cmd:"" help:"Look after forwarding: where the mail of an account goes beside its mailbox or in its place."`
	Relay    relayCommand   `cmd:"" help:"Look after domains that mail is relayed for (backup MX)."`
	Journal  journalCommand `cmd:"" help:"Look after journals: copies of what an account or a domain sends and receives."`
	Route    routeCommand   `cmd:"" help:"Look after routes: where mail leaves by recipient or sender, and test them."`
	SRS      srsCommand     `cmd:"" name:"srs" help:"Look after the keys that senders of forwarded mail are signed with."`
	Access   accessCommand  `cmd:"" help:"Say who may connect, sign in and send mail here."`
	DNSList  dnsListCommand `cmd:"" name:"dnslist" help:"Look after the DNS block and allow lists that strangers are looked up in."`
	Sending  sendingCommand `cmd:"" help:"Look after how much users send, and whose mail is on hold."`
	Queue    queueCommand   `cmd:"" help:"Look after outgoing mail."`
	Trace    traceCommand   `cmd:"" help:"Find out what became of messages."`
	Sieve    sieveCommand   `cmd:"" help:"Look after the filter scripts of accounts."`
	Milter   milterCommand  `cmd:"" help:"Have other programs look at messages, over the milter protocol."`
	Store    storeCommand   `cmd:"" help:"Look after the storage of messages."`
	TLS      tlsCommand     `cmd:"" help:"Look after the protection of connections with other servers."`
	Backup   backupCommand  `cmd:"" help:"Make backups, prove them, and bring back what is in them."`
	Config   configCommand  `cmd:"" help:"Show, check and change settings."`
	Doctor   doctorCommand  `cmd:"" help:"Examine the server and what it stands on."`
	Export   exportCommand  `cmd:"" help:"Write the mail of an account into files."`
	Import   importCommand  `cmd:"" help:"Take mail from files into an account."`
	Version  versionCommand `cmd:"" help:"Print the version."`
	SMTPTest smtpTest       `cmd:"" name:"smtp-test" help:"Talk to any mail server step by step, and explain what it says."`
}

func main() {
	unix.Umask(0o077) // what is made here is for the server's user alone
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const description = `Waxwing, a secure mail server.

Exit codes: 0 done; 1 failed; 2 wrong command line or value; 3 not found; 4 exists already or changed meanwhile; 5 server, store or disk can't be reached.`

// run carries out one command line and gives the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, talk io.Writer) int {
	var cli commandLine
	ended := -1 // set by --help, which ends the parse
	parser, err := kong.New(&cli,
		kong.Name("waxwing"), kong.Description(description), kong.Writers(out, talk),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Exit(func(code int) { ended = code }))
	if err != nil {
		fmt.Fprintln(talk, "waxwing:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if ended >= 0 {
		return ended
	}
	if err != nil {
		return report(talk, cli.JSON, usageError{err})
	}
	ctx = directory.WithActor(ctx, "local "+userName())
	s := &session{ctx: ctx, in: in, out: out, talk: talk, json: cli.JSON, dir: cli.Dir}
	return report(talk, cli.JSON, parsed.Run(s))
}

// usageError is a command line that can't be right.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// quietError ends a command whose output has said already what is wrong.
type quietError struct{ code int }

func (e quietError) Error() string { return "" }

// refusedNow tells an error of the disk or of rights, wherever it comes from.
func refusedNow(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.EMFILE, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// report prints an error and gives the exit code.
func report(w io.Writer, asJSON bool, err error) int {
	code, kind := exitFailed, control.KindOf(err)
	var quiet quietError
	var usage usageError
	var problems config.Problems
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &quiet):
		return quiet.code
	case errors.As(err, &usage), errors.As(err, &problems):
		code, kind = exitUsage, control.Invalid
	case kind == control.Unavailable, refusedNow(err):
		code, kind = exitUnavailable, control.Unavailable
	case kind == control.Invalid:
		code = exitUsage
	case kind == control.NotFound:
		code = exitNotFound
	case kind == control.Conflict:
		code = exitConflict
	}
	if asJSON {
		line, jerr := json.Marshal(map[string]any{"error": err.Error(), "kind": kind, "exit": code})
		if jerr == nil {
			fmt.Fprintln(w, string(line))
			return code
		}
	}
	fmt.Fprintln(w, "waxwing:", err)
	if errors.As(err, &usage) {
		fmt.Fprintln(w, "`waxwing --help` and `waxwing COMMAND --help` show what is possible.")
	}
	return code
}
