package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"waxwing/internal/address"
	"waxwing/internal/auth"
	"waxwing/internal/control"
)

// maxPasswordFile bounds a file that holds a password.
const maxPasswordFile = 4096

// passwordFlag is how a command takes a password.
type passwordFlag struct {
	PasswordFile string `help:"File whose first line is the password; - is standard input. Without it you are asked." placeholder:"FILE"`
}

// hash takes a new password for owner and gives its argon2id hash.
func (f passwordFlag) hash(s *session, owner address.Address) (string, error) {
	password, err := f.read(s)
	if err != nil {
		return "", err
	}
	defer clear(password)
	return hashNew(owner, password)
}

// hashNew checks a new password against the policy and hashes it.
func hashNew(owner address.Address, password []byte) (string, error) {
	if err := checkNew(owner, password); err != nil {
		return "", err
	}
	return auth.HashPassword(password)
}

// checkNew checks a new password against the policy.
func checkNew(owner address.Address, password []byte) error {
	err := auth.CheckPassword(owner, password)
	var policy *auth.PolicyError
	if errors.As(err, &policy) {
		return control.Errorf(control.Invalid, "password of %s: %s", owner, policy.Want)
	}
	return err
}

func (f passwordFlag) read(s *session) ([]byte, error) {
	switch f.PasswordFile {
	case "":
		return askTwice(s)
	case "-":
		return firstLine(s.in)
	}
	file, err := os.Open(f.PasswordFile)
	if err != nil {
		return nil, control.Errorf(control.NotFound, "read password: %w", err)
	}
	password, err := firstLine(file)
	return password, errors.Join(err, file.Close())
}

// firstLine reads up to a line end or the end.
func firstLine(r io.Reader) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPasswordFile)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read password: %w", err)
	}
	line = bytes.TrimRight(line, "\r\n")
	if len(line) == 0 {
		return nil, usagef("the password is empty")
	}
	return line, nil
}

// askTwice asks on the terminal without echo.
func askTwice(s *session) ([]byte, error) {
	tty, ok := s.in.(*os.File)
	if !ok {
		return nil, usagef("no terminal to ask for a password: use --password-file")
	}
	first, err := ask(s, tty, "New password: ")
	if err != nil {
		return nil, err
	}
	second, err := ask(s, tty, "Once more: ")
	defer clear(second)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		clear(first)
		return nil, usagef("the two passwords differ")
	}
	return first, nil
}

// ask reads one line with the terminal's echo off.
func ask(s *session, tty *os.File, prompt string) (password []byte, err error) {
	fd := int(tty.Fd())
	old, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, usagef("standard input is no terminal to ask for a password: use --password-file")
	}
	silent := *old
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	fmt.Fprint(s.talk, prompt)
	if err := unix.IoctlSetTermios(fd, setTermios, &silent); err != nil {
		return nil, fmt.Errorf("ask for password: %w", err)
	}
	restore := func() error {
		fmt.Fprintln(s.talk)
		return unix.IoctlSetTermios(fd, setTermios, old)
	}
	line, err := awaitLine(s, tty)
	if err == nil && len(line) == 0 {
		err = usagef("the password is empty")
	}
	return line, errors.Join(err, restore())
}

// askYes asks a question on the terminal; only "y" and "yes" agree.
func (s *session) askYes(question string) (bool, error) {
	tty, ok := s.in.(*os.File)
	if ok {
		_, err := unix.IoctlGetTermios(int(tty.Fd()), getTermios)
		ok = err == nil
	}
	if !ok {
		return false, usagef("standard input is no terminal to ask on: add --yes")
	}
	fmt.Fprintf(s.talk, "%s [y/N] ", question)
	line, err := awaitLine(s, tty)
	if err != nil {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(string(line)))
	return answer == "y" || answer == "yes", nil
}

// awaitLine reads a line of the terminal until the context ends. Such a read can't be cancelled: on Ctrl-C it is left
// behind, and the program ends.
func awaitLine(s *session, tty *os.File) ([]byte, error) {
	type answer struct {
		line []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		line, err := readTerminal(tty)
		done <- answer{line, err}
	}()
	select {
	case a := <-done:
		return a.line, a.err
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// readTerminal reads one line octet by octet, so that nothing of the next line is taken.
func readTerminal(tty io.Reader) ([]byte, error) {
	var line []byte
	var b [1]byte
	for len(line) < maxPasswordFile {
		n, err := tty.Read(b[:])
		if n == 1 && b[0] == '\n' {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read terminal: %w", err)
		}
		line = append(line, b[:n]...)
	}
	return line, nil
}
