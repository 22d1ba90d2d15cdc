# The version control stamp is left out: it fails a build wherever git is
# missing or the checkout belongs to another user.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

GOTESTSUM   := go run gotest.tools/gotestsum@v1.13.0
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what is missing of Redis and Postgres (Debian, Ubuntu)
	@.ci/setup

.PHONY: testsetup
testsetup: ## The same, and what only tests need: a C compiler, Node, Chromium
	@.ci/setup --test

.PHONY: build
build: ## Build the programs into bin/
	go build -o bin/ ./cmd/...

.PHONY: run
run: setup build ## Run the whole platform here, with demo data: the same as bin/plugcast dev
	@exec bin/plugcast dev $(ARGS)

.PHONY: test
test: testsetup ## Run go vet and all tests, with the race detector, in under 8 minutes
	go vet ./...
	$(GOTESTSUM) --format pkgname-and-test-fails -- -race -short -timeout 20m ./...

.PHONY: testlong
testlong: testsetup ## The same with thousands of devices and sockets where test has hundreds
	go vet ./...
	$(GOTESTSUM) --format pkgname-and-test-fails -- -race -timeout 30m ./...

.PHONY: lint
lint: ## Check the formatting and run static analysis
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted with gofmt:" $$unformatted; exit 1; fi
	go vet ./...
	$(STATICCHECK) ./...

.PHONY: bench
bench: testsetup ## Run every benchmark once, so that none rots
	go test -run '^$$' -bench . -benchtime 1x -benchmem ./...

.PHONY: fuzz
fuzz: ## Fuzz every decoder, each for FUZZTIME (1m)
	@.ci/fuzz $(FUZZTIME)

.PHONY: clean
clean: ## Remove what was built; data under .plugcast stay
	rm -rf bin
