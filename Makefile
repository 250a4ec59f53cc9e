# Names for the commands people type. Bare `make` lists them.

# `make run` takes the profile that the tests use too, so a fresh machine builds everything once;
# PROFILE=release makes a faster system after a longer build.
PROFILE ?= dev
AUTHOR ?= anne

TARGET := $(or $(CARGO_TARGET_DIR),target)
BUILT := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
LAUNCHER := $(BUILT)/inkstream-dev

.DEFAULT_GOAL := help
.PHONY: help setup run tour token test test-shell fuzz browser check rebuild verify deny bench

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing on a bare Debian machine, and fetch Kafka
	@dev/setup.sh

run: setup ## Run the whole system until Ctrl-C; its data stays in .data (PROFILE=release: faster, builds longer)
	@echo "Building with the profile $(PROFILE); the first time takes minutes"
	cargo build --profile $(PROFILE) --workspace --bins
	@exec $(LAUNCHER) run

tour: ## Publish a post on the running system and report each hop of its event
	@cargo build -q --profile $(PROFILE) -p command-service -p dev --bins
	@exec $(LAUNCHER) tour

token: ## Print a bearer token: make -s token AUTHOR=anne
	@dev/setup.sh >&2
	@cargo build -q --profile $(PROFILE) -p command-service -p dev --bins >&2
	@$(LAUNCHER) token --author '$(AUTHOR)'

test: setup ## Run all tests, on servers started for them
	@echo "Building programs and tests; the first time takes minutes"
	cargo build --workspace --bins --tests
	@exec $(TARGET)/debug/inkstream-dev with-servers --postgres-opt fsync=off -- cargo test --workspace $(ARGS)

test-shell: setup ## Open a shell beside servers for tests, to run `cargo test` in many times
	cargo build --workspace --bins
	@exec $(TARGET)/debug/inkstream-dev with-servers -- $${SHELL:-bash}

fuzz: setup ## Ask both services what their OpenAPI documents allow, and more, on servers started for it
	cargo build --workspace --bins
	@exec $(TARGET)/debug/inkstream-dev with-servers -- dev/fuzz.sh

browser: setup ## Look at the pages for people with Chromium; pictures go to browser/ in the target directory
	cargo build -p command-service -p projector -p query-service -p dev --bins
	@exec $(TARGET)/debug/inkstream-dev with-servers -- dev/browser.sh

check: setup ## Check formatting and lints
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

rebuild: ## Make the views of the running system anew, beside the live ones, and switch to them
	@cargo build -q --profile $(PROFILE) -p projector -p dev --bins
	@exec $(LAUNCHER) projector rebuild $(ARGS)

verify: ## Hold the views of the running system against its log (ARGS=--repair: and mend them)
	@cargo build -q --profile $(PROFILE) -p projector -p dev --bins
	@exec $(LAUNCHER) projector verify $(ARGS)

deny: setup ## Check licences, sources and bans of all dependencies
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked
	cargo deny check bans licenses sources

bench: setup ## Measure, on servers started for it, with a release build
	cargo build --release --workspace --bins
	@exec $(TARGET)/release/inkstream-dev with-servers -- $(TARGET)/release/bench $(ARGS)
