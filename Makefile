# make              build the tools
# make demo         nginx from a registry, served on port 8080 (installs what is missing from Debian)
# make test         every test; the last line counts them (installs what is missing from Debian)
# make test-fresh   make demo and make test on a fresh Debian 13 and 12, as root and as a user with sudo; one line each
# make test-vm      cgroup v2, systemd and a reboot in a machine of their own, by qemu (FILTER="spawn::": other tests than those)
# make test-arm64   the programs for 64-bit ARM in an emulated machine (FILTER="spawn::": other tests than the few that it chooses)
# make test-weakened   shows that the tests of docs/security.md fail where a check is taken away (installs what is missing)
# make test-reproducible   the packages built twice, in different directories, are the same: ten minutes
# make test-faults  one error in each call, damage to each file, power cuts: hours (make test takes a sample)
# make soak         an hour of containers that come, go and are killed (DURATION=SECONDS); ends with the machine as it was
# make fuzz         the readers of what others wrote under libFuzzer (DURATION=SECONDS for each target; default 60)
# make lint         formatting, clippy, shellcheck, and which crates may be here (deny.toml)
# make bench        the tools against their peers, about ten minutes: docs/bench and README's numbers (RUNS=30: more runs of each)
# make book         docs/ as a book, into target/book: open index.html there; its search needs no server
# make install      the tools into PREFIX/lib/drayage/bin, the command `drayage` into PREFIX/bin, the manual, completions of bash,
#                   zsh and fish, and drayage.service for systemd
# make uninstall    removes what make install has put there; images, containers and volumes stay
# make deb tarball  packages of the programs, a list of their crates and SHA256SUMS, into target/packages (either word makes all)
# make deb-arm64 tarball-arm64   the same for 64-bit ARM, built on x86-64 by Debian 13's compiler, in a root file system of its own
# make clean

PREFIX  = /usr/local
DESTDIR =
# Programs that this machine can execute, where those in BIN are for another: the manual is what they say of themselves.
NATIVE  =
# Debian's packages have zsh's in share/zsh/vendor-completions.
BASH_COMPLETIONS = share/bash-completion/completions
ZSH_COMPLETIONS  = share/zsh/site-functions
FISH_COMPLETIONS = share/fish/vendor_completions.d
TOOLS   = pull push unpack bundle ns portmap spawn keep run compose

# Cargo may be rustup's, whose directory a new login only has in its PATH; system programs may not be in a user's.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin
# The static binaries need their target named: see .cargo/config.toml.
export CARGO_BUILD_TARGET = $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET  = $(or $(CARGO_TARGET_DIR),target)
BIN     = $(TARGET)/$(CARGO_BUILD_TARGET)/release
SUDO    = $(shell test "$$(id -u)" = 0 || echo sudo)

.PHONY: all build demo test test-fresh test-vm test-arm64 test-weakened test-reproducible test-faults soak fuzz lint bench book \
	install install-front uninstall deb tarball deb-arm64 tarball-arm64 clean
all: build

# No program has a path of whoever built it, so the same sources make the same bytes in any directory. These flags are added to
# those of .cargo/config.toml.
build:
	cargo build --release --locked \
		--config "target.'cfg(target_os = \"linux\")'.rustflags = ['--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}/registry/src=crates']"

demo:
	@$(SUDO) env PATH="$$PATH" tests/demo --check
	@tests/setup demo
	@test -x "$(BIN)/run" || echo "demo: the first build compiles some hundred crates, which takes minutes"
	@$(MAKE) --no-print-directory build
	@$(SUDO) env PATH="$$PATH" tests/demo "$(abspath $(BIN))"

test:
	@tests/setup test
	@tests/run

test-fresh:
	@tests/setup fresh
	@$(SUDO) env PATH="$$PATH" tests/fresh $(DEBIAN)

test-vm:
	@tests/setup vm
	@$(SUDO) env PATH="$$PATH" tests/vm $(FILTER)

test-arm64:
	@tests/setup arm64
	@$(SUDO) env PATH="$$PATH" tests/arm64 $(FILTER)

test-weakened:
	@tests/setup weakened
	@$(SUDO) env PATH="$$PATH" tests/weaken

test-reproducible:
	@tests/setup reproducible
	@tests/reproducible

test-faults:
	@tests/setup test
	@FAULTS=whole tests/run faults::

soak:
	@tests/setup test
	@SOAK="$(or $(DURATION),3600)" tests/run kill::soak

fuzz:
	@tests/setup fuzz
	@DURATION="$(or $(DURATION),60)" fuzz/run

lint:
	@tests/setup lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	shellcheck tests/setup tests/run tests/fresh tests/vm tests/arm64 tests/counted tests/weaken tests/reproducible tests/wild tests/demo front/drayage bench/run bench/curves fuzz/run front/package front/cross front/sources front/install front/manual front/completions/complete front/completions/drayage.bash .ci/run
	python3 -c 'import ast, sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]' docs/draw-trace docs/draw-pipe docs/draw-levels bench/ledger bench/images front/crates tests/images/make tests/images/*.py tests/e2e/faults/disk.py tests/e2e/hosts/without.py
	front/crates --check

bench:
	@tests/setup bench
	@$(MAKE) --no-print-directory build
	@rm -f "$(TARGET)/bench.lines"
	@$(SUDO) env PATH="$$PATH" BIN="$(abspath $(BIN))" RUNS="$(or $(RUNS),15)" RESULTS="$(abspath $(TARGET))/bench.lines" bench/run
	@bench/ledger "$(TARGET)/bench.lines"

book:
	@tests/setup book
	mdbook build docs

# Builds nothing when there is something to install, so that `sudo make install` needs no cargo.
install:
	@set -e; bin="$(BIN)"; test -n "$(CARGO_BUILD_TARGET)" || bin=$$(echo $(TARGET)/*-linux-gnu/release); \
	test -x "$$bin/run" || $(MAKE) --no-print-directory build; \
	install -d "$(DESTDIR)$(PREFIX)/lib/drayage/bin" "$(DESTDIR)$(PREFIX)/bin"; \
	for tool in $(TOOLS); do install -m 755 "$$bin/$$tool" "$(DESTDIR)$(PREFIX)/lib/drayage/bin/$$tool"; done; \
	$(MAKE) --no-print-directory install-front; \
	front/manual "$(or $(NATIVE),$$bin)" "$(DESTDIR)$(PREFIX)/share/man"
	@echo "installed: $(DESTDIR)$(PREFIX)/bin/drayage and $(DESTDIR)$(PREFIX)/lib/drayage/bin"

# What is no program: the command in front, completions, systemd's unit.
install-front:
	@install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/lib/systemd/system"
	@install -m 755 front/drayage "$(DESTDIR)$(PREFIX)/bin/drayage"
	@sed 's|@PREFIX@|$(PREFIX)|' front/drayage.service >"$(DESTDIR)$(PREFIX)/lib/systemd/system/drayage.service"
	@install -D -m 755 front/completions/complete "$(DESTDIR)$(PREFIX)/lib/drayage/complete"
	@install -D -m 644 front/completions/drayage.bash "$(DESTDIR)$(PREFIX)/$(BASH_COMPLETIONS)/drayage"
	@install -D -m 644 front/completions/_drayage "$(DESTDIR)$(PREFIX)/$(ZSH_COMPLETIONS)/_drayage"
	@install -D -m 644 front/completions/drayage.fish "$(DESTDIR)$(PREFIX)/$(FISH_COMPLETIONS)/drayage.fish"

uninstall:
	@rm -rf "$(DESTDIR)$(PREFIX)/lib/drayage"
	@rm -f "$(DESTDIR)$(PREFIX)/bin/drayage" "$(DESTDIR)$(PREFIX)/lib/systemd/system/drayage.service"
	@rm -f "$(DESTDIR)$(PREFIX)/$(BASH_COMPLETIONS)/drayage" "$(DESTDIR)$(PREFIX)/$(ZSH_COMPLETIONS)/_drayage" \
		"$(DESTDIR)$(PREFIX)/$(FISH_COMPLETIONS)/drayage.fish"
	@rm -f "$(DESTDIR)$(PREFIX)/share/man/man1/drayage-"*.1 "$(DESTDIR)$(PREFIX)/share/man/man5/drayage-record.5" \
		"$(DESTDIR)$(PREFIX)/share/man/man7/drayage.7"
	@echo "removed from $(DESTDIR)$(PREFIX); images, containers and volumes are in /var/lib/drayage"

deb tarball: build
	front/package "$(BIN)" $(TARGET)/packages

# The manual is what this machine's own programs say.
deb-arm64 tarball-arm64: build
	@tests/setup cross
	@$(SUDO) env PATH="$$PATH" front/cross --release
	front/package "$${DRAYAGE_TEST_CACHE:-/var/cache/drayage-tests}/arm64/target/aarch64-unknown-linux-gnu/release" $(TARGET)/packages "$(BIN)"

clean:
	cargo clean
	rm -rf target/book
