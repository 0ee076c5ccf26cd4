# `make demo` needs Rust and a C compiler, nothing else. `make test` sets up what tests need, then passes all.

CARGO  ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
TOOLS  := $(CURDIR)/.tools
PYTEST := $(TOOLS)/py/bin/python -m pytest

# What `make` builds has SQL; `cargo build` alone, for a quick loop of edit and test, does not. FEATURES= leaves it out.
FEATURES ?= backtide/sql
WITH     := $(if $(FEATURES),--features $(FEATURES))

# What the outside suite drives; `BACKTIDE_BIN=… make test-outside` tests another one.
export BACKTIDE_BIN ?= $(TARGET)/debug/backtide

.PHONY: help build console tools lint test test-rust test-outside fuzz demo release bench soak clean

help:
	@echo "make demo          build, start a gateway, send it real history, read it back"
	@echo "make test          set up and pass every test (Debian 12 as root installs what it needs)"
	@echo "make build         the development binary: $(BACKTIDE_BIN)"
	@echo "make release       the binary for use, with SQL: $(TARGET)/release/backtide"
	@echo "make console       the console that is embedded in it (Node.js 20 or newer; build does it where npm is there)"
	@echo "make lint          formatting and clippy"
	@echo "make test-rust     the Rust tests alone"
	@echo "make test-outside  the outside suite alone; ARGS='-k quickstart' picks tests"
	@echo "make fuzz          every fuzz target for a moment"
	@echo "make bench         speed, as a table and as JSON"
	@echo "make soak          the outside suite and the store's seeds, long"
	@echo "make tools         what tests need, into .tools/ (apt where root)"
	@echo "make clean         remove what was built; .tools/ too"

# Where npm is there.
CONSOLE := $(if $(shell command -v npm),console)

build: $(CONSOLE) | need-rust
	$(CARGO) build --workspace --bins $(WITH)

# Built anew where a source of it, or the API description that its types come from, has changed.
CONSOLE_FROM := $(shell find console -path console/node_modules -prune -o -path console/dist -prune -o -type f ! -name schema.ts -print) \
	crates/gateway/src/http/snapshots/backtide__http__tests__openapi.snap

console: console/dist/index.html

console/dist/index.html: $(CONSOLE_FROM)
	cd console && npm ci --no-audit --no-fund && npm run build

tools:
	@tests/tools/install

lint: | need-rust
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets $(WITH) -- -D warnings
	$(if $(FEATURES),$(CARGO) clippy --workspace --bins -- -D warnings)

test-rust: | need-rust
	$(CARGO) test --workspace $(WITH)

OUTSIDE := $(PYTEST) tests/outside -n 3 --dist loadgroup

test-outside: tools build
	$(OUTSIDE) $(ARGS)

# One after the other, whatever -j says: they share two cores and one build folder. The console comes first, since the binary
# embeds it; `test-rust` makes the binary that the outside suite drives, so that nothing is built twice.
test:
	$(MAKE) tools
	$(MAKE) console
	$(MAKE) lint
	$(MAKE) test-rust
	$(OUTSIDE)
	$(MAKE) fuzz

# Ten seconds a target; FUZZ_SECONDS=600 for more.
fuzz: | need-rust
	fuzz/run

# Without SQL, which more than doubles a first release build; `make release` has everything.
demo: $(CONSOLE) | need-rust
	$(CARGO) build --release --bin backtide
	$(TARGET)/release/backtide demo $(ARGS)

release: $(CONSOLE) | need-rust
	$(CARGO) build --release --bin backtide $(WITH)

bench: | need-rust
	$(CARGO) build --release --bin backtide --example decode_bench --example kafka_ceiling $(WITH)
	bench/run $(ARGS)

soak: tools build
	BACKTIDE_SEEDS=$${BACKTIDE_SEEDS:-1000} $(CARGO) test --workspace --release $(WITH)
	BACKTIDE_KILLS=$${BACKTIDE_KILLS:-200} BACKTIDE_KAFKA_TROUBLES=$${BACKTIDE_KAFKA_TROUBLES:-40} \
		BACKTIDE_KAFKA_STOP_S=$${BACKTIDE_KAFKA_STOP_S:-120} $(PYTEST) tests/outside $(ARGS)

clean:
	$(CARGO) clean
	rm -rf $(TOOLS)

.PHONY: need-rust
need-rust:
	@command -v $(CARGO) >/dev/null || { echo "backtide needs Rust 1.95 or newer (cargo is not on the PATH)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "backtide needs a C compiler (cc is not on the PATH; Debian: build-essential)" >&2; exit 1; }
