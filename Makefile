# Needs Go and make, nothing else: tools come from tools/go.mod.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

LINT := go tool -modfile=tools/go.mod golangci-lint

# How long each fuzz target runs, how often stress repeats every test, how often
# soak kills the engine, for how long outage takes the store away, and how many
# histories linear checks.
FUZZTIME ?= 60s
STRESS ?= 50
ROUNDS ?= 10000
OUTAGE ?= 60s
SEEDS ?= 500

.PHONY: help
help: ## Show this help
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: check
check: fmt-check vet lint test ## Run what has to pass before a commit

.PHONY: fmt
fmt: ## Format the code
	$(LINT) fmt

.PHONY: fmt-check
fmt-check: ## Show what fmt would change, and fail if anything
	$(LINT) fmt --diff

.PHONY: vet
vet: ## Run go vet
	go vet ./...

.PHONY: lint
lint: ## Run the linters
	$(LINT) run

.PHONY: prove-lint
prove-lint: ## Break each linter rule once, to see it reported
	tools/prove-lint.sh

.PHONY: build
build: ## Build bin/lotline
	go build -trimpath -o bin/lotline ./cmd/lotline

.PHONY: test
test: ## Run the tests
	go test ./...

.PHONY: race
race: ## Run the tests with the race detector, in random order
	go test -race -shuffle=on -count=1 -timeout=30m ./...

.PHONY: client-tests
client-tests: ## Run the official client's own tests against the embedded store
	tools/client-tests.sh

.PHONY: node-client-tests
node-client-tests: ## Test the embedded store through the official clients for NodeJS; needs root to install node when it is missing
	tools/node-client-tests.sh

.PHONY: openapi-clients
openapi-clients: ## Lint the API's documents, and call an engine with clients generated from them; needs root to install node when it is missing
	tools/openapi-clients.sh

.PHONY: console-test
console-test: ## Try the console in headless Chromium; needs npm, and root to install Chromium
	tools/console-tests.sh

.PHONY: conformance
conformance: ## Try the event store that LOTLINE_TEST_EVENTSTORE names
	@test -n "$$LOTLINE_TEST_EVENTSTORE" || { echo "LOTLINE_TEST_EVENTSTORE=esdb://… is missing" >&2; exit 2; }
	go test -run '^TestServer$$' -count=1 -v ./eventstore/storetest

.PHONY: stress
stress: ## Run the tests STRESS times with the race detector
	go test -race -shuffle=on -count=$(STRESS) -timeout=0 ./...

.PHONY: soak
soak: ## Kill the engine ROUNDS times while clients write, and compare
	LOTLINE_TEST_ROUNDS=$(ROUNDS) go test -run '^TestKill_' -count=1 -timeout=0 -v ./cmd/lotline

.PHONY: outage
outage: ## Take the store away from two engines for OUTAGE
	LOTLINE_TEST_OUTAGE=$(OUTAGE) go test -run '^TestOutage_' -count=1 -timeout=0 -v ./cmd/lotline

.PHONY: linear
linear: ## Check SEEDS concurrent histories of each kind, and what explains them
	LOTLINE_TEST_SEEDS=$(SEEDS) go test -count=1 -timeout=0 -run '^Test(Linear|Crowd)_' ./cmd/lotline

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME, one after another
	@grep -rlE --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u | while read -r dir; do \
		go test -list '^Fuzz' "$$dir" | { grep '^Fuzz' || true; } | while read -r target; do \
			echo "$$dir $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" < /dev/null; \
		done; \
	done

.PHONY: bench
bench: ## Run the benchmarks
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-smoke
bench-smoke: ## Run each benchmark once, so that none rots
	go test -run '^$$' -bench . -benchtime=1x ./...

.PHONY: bench-large
bench-large: ## Run the benchmarks of the whole engine at the sizes that count (20 minutes, 8 GB)
	go test -run '^$$' -bench 'CatchUp|TwoNodes|Writer|Append_client' -benchtime=3s ./cmd/lotline -events=400000
	go test -run '^$$' -bench 'Timers_single' -benchtime=1x ./cmd/lotline -singletimers=300
	go test -run '^$$' -bench 'Timers$$' -benchtime=1x ./cmd/lotline -timers=10000
	go test -run '^$$' -bench 'Timers$$' -benchtime=1x ./cmd/lotline -timers=100000
	go test -run '^$$' -bench 'Restart' -benchtime=1x -timeout=30m ./cmd/lotline -distributions=1000000
	go test -run '^$$' -bench 'Queue_' -benchtime=1x -timeout=30m ./cmd/lotline -entries=1000000

.PHONY: cover
cover: ## Run the tests and show what they cover
	go test -coverpkg=./... -coverprofile=coverage.out ./...
	go tool cover -func=coverage.out | tail -n 1

.PHONY: zones
zones: ## Bring the time-zone database up to Debian's newest edition; needs Debian and its mirror
	tools/zones.sh

.PHONY: notices
notices: ## Write the licenses of the modules in the binary to THIRD_PARTY_NOTICES
	go -C tools run ./notices .. > THIRD_PARTY_NOTICES

.PHONY: hooks
hooks: ## Run .githooks/pre-commit before each commit
	git config core.hooksPath .githooks
