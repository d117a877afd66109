// Package memory reaches SQLite's structures. They lie in memory that Go's collector doesn't know, and are named by number. These
// are the only places where numbers become pointers and functions.
package memory

import "unsafe"

// At gives what lies at an address in SQLite's memory.
func At[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// Octets gives n octets of SQLite's memory.
func Octets(p uintptr, n int) []byte { return unsafe.Slice(At[byte](p), n) }

// Function gives the function behind a pointer to it that SQLite holds.
func Function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

// Pointer makes what SQLite can call of a declared function, never of a closure: nothing here keeps one alive.
func Pointer[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }
