# brig: what people and CI type. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
DESTDIR ?=
# Whether brig is installed as `docker` too: yes, no, or auto: where no docker is in the way.
LINK_DOCKER ?= auto
NEXTEST_PROFILE ?= default
# How many seconds everything goes wrong with three managers in `make stress`.
CHAOS ?= 600
# Where cargo puts optimised programs.
RELEASE ?= $(or $(CARGO_TARGET_DIR),target)/release
# Of brig-bench: engine join loss rotation certificates sessions remote trust store, store:PART with the parts write
# write3 failover restore start, and engine:PART with the parts run
# swarm pull load exec logs parallel ps; none: all.
SUITES ?=

.PHONY: help
help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | sort | expand -t 16

.PHONY: setup
setup: ## install what building and running brig needs (Debian packages)
	@scripts/setup.sh run

.PHONY: setup-test
setup-test: ## install what the tests need too: peers and tools
	@scripts/setup.sh test

.PHONY: build
build: setup ## build brigd and brig, optimised
	cargo build --release --locked -p brigd -p brig

.PHONY: demo
demo: build ## set up this machine and run the main job, narrated
	@scripts/demo.sh run

.PHONY: demo-clean
demo-clean: ## remove everything that the demo left
	@scripts/demo.sh clean

.PHONY: test
test: setup-test ## set up and run every test
	cargo build --workspace --all-targets --locked
	cargo nextest run --workspace --locked --profile $(NEXTEST_PROFILE)
	cargo test --workspace --doc --locked --quiet

.PHONY: test-vm
test-vm: build ## demo, installation, AppArmor, cgroup v2 and power cuts on a stock Debian 12 in a virtual machine
	@scripts/vm-demo.sh
	@scripts/vm-power.sh

.PHONY: conformance
conformance: ## bollard's published tests and docker's SDK for Python against dockerd and brigd
	@scripts/setup.sh conformance
	cargo build --locked -p brigd
	@scripts/conformance.sh
	@scripts/conformance-python.sh

.PHONY: lint
lint: ## formatting, clippy with warnings denied (fuzz targets too), house rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target) --locked \
	  --no-default-features --features daemon -- -D warnings
	cargo run --quiet --locked -p xtask -- verify
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --locked check bans licenses sources; \
	 else echo "cargo-deny is not installed: 'cargo install cargo-deny --locked' adds the licence and ban check"; fi

.PHONY: stress
stress: setup-test ## ten thousand idle connections; a thousand containers and ten kills of brigd; ten minutes of faults on three managers
	cargo build --workspace --all-targets --locked
	BRIG_IDLE=10000 cargo nextest run --locked -p brig-e2e --no-capture idle_connections
	BRIG_STORM=1000x10 cargo nextest run --locked -p brig-e2e --no-capture nothing_is_left
	BRIG_CHAOS=$(CHAOS) cargo test --locked -p brig-e2e --test e2e -- --nocapture managers_lose_nothing

.PHONY: bench
bench: setup-test ## compare brigd with a real dockerd in one run, and put a manager under load
	cargo build --release --locked -p brigd -p brig -p brig-e2e
	@$(RELEASE)/brig-bench $(SUITES)

.PHONY: install
install: build ## install binaries and the systemd unit below $(PREFIX)
	install -D -m 0755 $(RELEASE)/brigd $(DESTDIR)$(PREFIX)/bin/brigd
	install -D -m 0755 $(RELEASE)/brig $(DESTDIR)$(PREFIX)/bin/brig
	install -d -m 0755 $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@PREFIX@|$(PREFIX)|g' packaging/systemd/brig.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/brig.service
	chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/brig.service
	@scripts/link-docker.sh '$(LINK_DOCKER)' '$(DESTDIR)' '$(PREFIX)'

.PHONY: uninstall
uninstall: ## remove what install put there; data stays
	@scripts/link-docker.sh remove '$(DESTDIR)' '$(PREFIX)'
	rm -f $(DESTDIR)$(PREFIX)/bin/brigd $(DESTDIR)$(PREFIX)/bin/brig $(DESTDIR)$(PREFIX)/lib/systemd/system/brig.service
