// Command reference writes the reference page of waxwing.toml from the types of package config. It runs by go generate
// and is no part of the server.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"

	"waxwing/internal/config"
)

func main() {
	out := flag.String("o", "", "file to write")
	flag.Parse()
	var b bytes.Buffer
	if err := config.WriteReference(&b); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := os.WriteFile(*out, b.Bytes(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
