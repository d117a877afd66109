package store

import (
	"errors"
	"fmt"

	"waxwing/internal/store/blob"
)

// faultError marks an error of the database with the sentinel that callers act on, and keeps its kind.
type faultError struct {
	fault    Fault
	sentinel error // nil when there is none
	err      error
}

func (e *faultError) Error() string {
	if e.sentinel == nil {
		return e.err.Error()
	}
	return e.sentinel.Error() + ": " + e.err.Error()
}

func (e *faultError) Unwrap() []error {
	if e.sentinel == nil {
		return []error{e.err}
	}
	return []error{e.sentinel, e.err}
}

// dbError gives an error of the driver its place among the errors of this package.
func (db *Database) dbError(err error) error {
	if err == nil {
		return nil
	}
	var known *faultError
	if errors.As(err, &known) {
		return err
	}
	e := &faultError{fault: db.Dialect.Fault(err), err: err}
	switch e.fault {
	case FaultOther:
		return err
	case FaultFull:
		e.sentinel = ErrFull
	case FaultReadOnly, FaultFailed:
		e.sentinel = ErrReadOnly
	case FaultCorrupt:
		e.sentinel = ErrCorrupt
	}
	return e
}

// IsUnique reports whether a statement failed because a unique key is taken.
func IsUnique(err error) bool {
	var e *faultError
	return errors.As(err, &e) && e.fault == FaultUnique
}

// faultOf returns the kind of an error that dbError has seen.
func faultOf(err error) Fault {
	var e *faultError
	if errors.As(err, &e) {
		return e.fault
	}
	return FaultOther
}

// blobError gives an error of the blob store its place among the errors of this package.
func blobError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, blob.ErrFull):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, blob.ErrFailed):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case errors.Is(err, blob.ErrCorrupt), errors.Is(err, blob.ErrGone):
		// A segment that is gone although a committed row points to it: this object is lost, and only this.
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case errors.Is(err, blob.ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}
