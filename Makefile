# Waxwing. `make run` starts a working server; `make test` installs what the tests need and runs them all.

GO       ?= go
TOOLS    := $(CURDIR)/.tools/bin
LINT_VERSION := v2.15.0
S3_VERSION := v1.8.0
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X waxwing/internal/build.Version=$(VERSION)
export CGO_ENABLED ?= 0

.PHONY: build run test test-race bench bench-store lint deps s3-deps lint-deps soak fuzz generate clean

build: ## bin/waxwing, one static binary
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/waxwing ./cmd/waxwing

run: build ## a working server on loopback, accounts printed once
	bin/waxwing demo --dir demo

deps: s3-deps ## what the tests need: real mail software from Debian, and a service that speaks S3's protocol
	scripts/deps.sh

s3-deps:
	@test -x $(TOOLS)/versitygw || GOBIN=$(TOOLS) $(GO) install github.com/versity/versitygw/cmd/versitygw@$(S3_VERSION)

# Ends a test that hangs; how long a test takes on a busy machine is no matter.
TIMEOUT := -timeout 40m

test: deps build ## everything but the soak
	$(GO) test $(TIMEOUT) ./...
	$(MAKE) test-race

# The race detector needs cgo and costs five times the work: it runs where goroutines meet.
RACE_PACKAGES := ./internal/wire ./internal/store/... ./internal/smtpserver ./internal/imapserver ./internal/pop3server \
	./internal/queue ./internal/auth ./internal/directory ./internal/dns/... ./internal/intake
test-race:
	CGO_ENABLED=1 $(GO) test $(TIMEOUT) -race -short $(RACE_PACKAGES)

bench: deps build ## side by side with Postfix and Dovecot on this machine; prints ratios
	$(GO) run ./bench

bench-store: ## the store beside what the disk could do at best
	$(GO) run ./bench/store

lint: lint-deps
	$(TOOLS)/golangci-lint run ./...

lint-deps:
	@test -x $(TOOLS)/golangci-lint && $(TOOLS)/golangci-lint version 2>/dev/null | grep -q "$(LINT_VERSION:v%=%)" || \
		GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

SOAK ?= 1
soak: deps build ## hours, not minutes: kills, power cuts, long fuzzing, large mailboxes
	$(GO) run ./test/soak -factor $(SOAK)
	$(MAKE) fuzz FUZZTIME=5m

FUZZTIME ?= 30s
fuzz: ## every fuzz target for FUZZTIME
	scripts/fuzz.sh $(FUZZTIME)

generate:
	$(GO) generate ./...

clean:
	rm -rf bin .tools
