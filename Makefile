# pylvs: every target does all it needs.  `make help` lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SYSTEM := iproute2 nftables tcpdump curl nginx-light iputils-ping

PREFIX ?= /usr/local
SHARE  := $(DESTDIR)$(PREFIX)/share
.PHONY: help setup system demo test check compiled uncompiled bounds lab bench guard baseline bench-net oracle \
        conformance warm install install-ipvsadm clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.ready  ## make .venv with the pylvs command in .venv/bin

$(VENV)/.ready: requirements.lock pyproject.toml
	@if [ "$$(uname -m)" != x86_64 ]; then \
	  echo "pylvs runs on x86-64 only: its rings rely on that machine's memory order"; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq python3-venv; \
	  else echo "Python's venv is missing; as root: apt-get install python3-venv"; exit 1; fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

system:  # what the lab uses; without root or apt-get its tests skip and say so
	@missing=""; for program in ip nft tcpdump curl nginx ping; do \
	  PATH=$$PATH:/usr/sbin:/sbin command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing what provides:$$missing"; apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM) >/dev/null; \
	  else echo "missing:$$missing; as root: apt-get install $(SYSTEM)"; fi; fi

demo: setup system  ## set up, then balance real HTTP by NAT, DR and TUN in a lab
	$(BIN)/pylvs lab demo

test: setup system check  ## everything that guards quality
	@$(MAKE) --no-print-directory -Oline -j$$(nproc) compiled uncompiled bounds
	@$(MAKE) --no-print-directory guard
	@$(MAKE) --no-print-directory lab

check: setup  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/style.py

compiled: setup  ## the tests as the director runs: compiled
	$(BIN)/pytest --ignore tests/lab

uncompiled: setup  ## the same tests in plain Python, with branch coverage
	NUMBA_DISABLE_JIT=1 HYPOTHESIS_PROFILE=slow $(BIN)/pytest --ignore tests/lab --cov --cov-report=

bounds: setup  ## the same tests with every array access checked
	NUMBA_BOUNDSCHECK=1 $(BIN)/pytest --ignore tests/lab

lab: setup system  ## real stacks in network namespaces; adds to the coverage
	$(BIN)/pytest tests/lab --cov --cov-append --cov-report=term:skip-covered \
	  $(if $(filter 0,$(shell id -u)),--cov-fail-under=90)

BENCH := $(BIN)/pytest benchmarks --benchmark-only --benchmark-columns=median,iqr \
  -p no:cacheprovider -s

bench: setup  ## the in-memory door beside plain Python and dpkt, as ratios
	$(BENCH)

guard: setup  ## the same in short: no slower than the stored baseline, a quarter being noise
	$(BENCH) --short

baseline: setup  ## store what make bench measures now as the baseline
	$(BENCH) --store-baseline

oracle: setup  ## random scenarios against the real kernel in QEMU; needs qemu-system-x86
	$(BIN)/python -m tools.oracle

conformance: setup  ## the captures of Linux, one line each
	$(BIN)/python tools/conformance.py tests/vectors

bench-net: setup system  ## the director beside nft, routing, proxies, plain Python (root, wrk, iperf3)
	$(BIN)/python -m benchmarks.net --json bench-net.json --plot bench-net.svg

warm: setup  ## compile now what the first start would compile
	$(BIN)/python -m pylvs.engine.warm

install: setup  ## pylvs, its manual page, completions and systemd unit in PREFIX
	@mkdir -p $(SHARE)/man/man8 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
	  $(SHARE)/fish/vendor_completions.d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system
	@ln -sf $(abspath $(BIN)/pylvs) $(DESTDIR)$(PREFIX)/bin/pylvs
	@$(BIN)/python -m tools.manual > $(SHARE)/man/man8/pylvs.8
	@_PYLVS_COMPLETE=bash_source $(BIN)/pylvs > $(SHARE)/bash-completion/completions/pylvs
	@_PYLVS_COMPLETE=zsh_source $(BIN)/pylvs > $(SHARE)/zsh/site-functions/_pylvs
	@_PYLVS_COMPLETE=fish_source $(BIN)/pylvs > $(SHARE)/fish/vendor_completions.d/pylvs.fish
	@sed 's,@PYLVS@,$(PREFIX)/bin/pylvs,' docs/pylvs.service \
	  > $(DESTDIR)$(PREFIX)/lib/systemd/system/pylvs.service
	@echo "installed; write /etc/pylvs/pylvs.toml, then: systemctl enable --now pylvs"

install-ipvsadm: setup  ## ipvsadm, ipvsadm-save and ipvsadm-restore in PREFIX/sbin
	@mkdir -p $(DESTDIR)$(PREFIX)/sbin
	@for pair in ipvsadm: ipvsadm-save:-S ipvsadm-restore:-R; do \
	  program=$(DESTDIR)$(PREFIX)/sbin/$${pair%%:*}; \
	  printf '#!/bin/sh\nexec %s -m pylvs.control.client %s "$$@"\n' \
	    '$(abspath $(BIN)/python)' "$${pair#*:}" > $$program && chmod 755 $$program && echo $$program; done

clean:  ## remove what make made
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
