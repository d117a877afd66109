package config

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSecret bounds a file that holds a secret.
const maxSecret = 16 << 10

// ReadSecret reads the first lines of a file that holds a secret: nobody else may read it.
func ReadSecret(name string, n int) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others can read the secret in it; chmod 600", name, fi.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < n {
		return nil, fmt.Errorf("%s has %d lines, not %d", name, len(lines), n)
	}
	for i := range lines[:n] {
		if lines[i] = strings.TrimSpace(lines[i]); lines[i] == "" {
			return nil, fmt.Errorf("line %d of %s is empty", i+1, name)
		}
	}
	return lines[:n], nil
}
