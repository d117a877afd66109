package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"waxwing/internal/durable"
)

// WriteKey makes an identity in a new file, in the form of age-keygen, and returns its recipient. With hybrid it withstands
// quantum computers too, and its recipient is some 2,000 characters long.
func WriteKey(file string, hybrid bool, now time.Time) (recipient string, err error) {
	var secret string
	if hybrid {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return "", err
		}
		secret, recipient = id.String(), id.Recipient().String()
	} else {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return "", err
		}
		secret, recipient = id.String(), id.Recipient().String()
	}
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", now.UTC().Format(time.RFC3339), recipient, secret)
	f, err := durable.OS.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("%s is there already: nothing is overwritten: %w", file, fs.ErrExist)
	}
	if err != nil {
		return "", err
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = durable.OS.SyncDir(filepath.Dir(file))
	}
	return recipient, err
}

// testRecipient is the recipient of the identity in a file.
func testRecipient(file string) (string, error) {
	ids, err := ReadIdentities(file)
	if err != nil {
		return "", err
	}
	if len(ids) == 1 {
		switch id := ids[0].(type) {
		case *age.X25519Identity:
			return id.Recipient().String(), nil
		case *age.HybridIdentity:
			return id.Recipient().String(), nil
		}
	}
	return "", fmt.Errorf("%s must hold one identity, of age's own kinds", file)
}

// SplitRecipients cuts the text of a setting.
func SplitRecipients(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}
