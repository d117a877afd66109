package backup

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"waxwing/internal/config"
	"waxwing/internal/durable"
	"waxwing/internal/store/objects"
)

// OpenTarget opens a target by its text. A bucket needs a file whose first line is the access key and whose second line is
// the secret key.
func OpenTarget(ctx context.Context, text, credentials string) (Target, error) {
	if text == "" {
		return nil, errors.New("no target is set: `waxwing backup schedule --target` sets one")
	}
	p, err := ParsePlace(text)
	if err != nil {
		return nil, fmt.Errorf("target %q: %w", text, err)
	}
	if p.Dir != "" {
		return OpenDir(durable.OS, p.Dir)
	}
	if credentials == "" {
		return nil, fmt.Errorf("target %s: a bucket needs a file with its credentials", text)
	}
	lines, err := config.ReadSecret(credentials, 2)
	if err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", text, err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // the environment is not read
	return openBucket(ctx, p, objects.Options{AccessKey: lines[0], SecretKey: lines[1], Transport: transport})
}
