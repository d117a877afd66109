#!/bin/sh
# Runs every fuzz target of the module, one after the other, for the time given (default 30s).
set -eu
time=${1:-30s}
cd "$(dirname "$0")/.."
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "== $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package"
	done
done
