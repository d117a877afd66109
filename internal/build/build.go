// Package build says what this program is. The Makefile has the linker set the version; a program that was built without
// it, by a test say, is "unknown". It holds nothing that changes while the program runs.
package build

// Version is that of this program, as `git describe` names it.
var Version = "unknown"
