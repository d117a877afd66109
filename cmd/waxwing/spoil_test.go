package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// spoilPack flips an octet of the first record of the first pack in a directory, as a failing disk does.
func spoilPack(ts *testscript.TestScript, _ bool, args []string) {
	packs, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "packs", "*.blob"))
	ts.Check(err)
	if len(packs) == 0 {
		ts.Fatalf("no pack in %s", args[0])
	}
	f, err := os.OpenFile(packs[0], os.O_RDWR, 0)
	ts.Check(err)
	const inFirstRecord = 64 + 88 + 8 // behind the header of the pack and the head of the record
	b := []byte{0}
	_, err = f.ReadAt(b, inFirstRecord)
	if err == nil {
		_, err = f.WriteAt([]byte{b[0] ^ 4}, inFirstRecord)
	}
	ts.Check(errors.Join(err, f.Close()))
}
