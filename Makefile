# The two commands of this project are `make demo` and `make test`; both run `make setup` first if needed.
# Debian 12 or later, Python ≥ 3.11, root (the demo and the tests make network namespaces).

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

APT := build-essential python3-venv python3-dev libssl-dev iproute2 iputils-ping nftables ethtool procps iperf \
       ffmpeg tcpdump util-linux valgrind strace clang libclang-rt-dev \
       $(if $(filter x86_64,$(shell uname -m)),libipsec-mb-dev)

PYTHON_FILES := $(shell find pipeline cffi_build -name '*.py')
C_FILES := $(wildcard cffi_build/src/*.[ch]) $(wildcard cffi_build/*.py) $(wildcard cffi_build/cdef.h)
MINUTES := 24
UNTIMED := $(patsubst %,tests/netns/test_%.py,authority container identities refusals security_addresses security_rights \
           security_unicast)
FUZZ_SECONDS ?= 7
REPORTS ?= .venv

.PHONY: help setup apt demo test apart lint unit untimed native fuzz perf clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    three namespaced hosts, a real stream, a live table (30 s)"
	@echo "make test    lint and every test (24 minutes on 2 cores)"
	@echo "make setup   install Debian packages, make .venv and the C extension"
	@echo "make lint    ruff, mypy --strict, import layers, C warnings"
	@echo "make unit    the tests that need no rights"
	@echo "make fuzz    five fuzzers, FUZZ_SECONDS each (default $(FUZZ_SECONDS))"
	@echo "make perf    measurements, see perf/README.md"
	@echo "make clean   remove all build products"

# ---------------------------------------------------------------- setup

setup: .venv/.bytecode

.venv/.apt: Makefile
	@missing=$$(dpkg-query -W -f '$${db:Status-Abbrev} $${Package}\n' $(APT) 2>/dev/null | awk '$$1 == "ii" { print $$2 }' | \
	    sort | comm -13 - <(printf '%s\n' $(APT) | sort)); \
	if [ -n "$$missing" ]; then \
	    sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	    echo "installing Debian packages:" $$missing; \
	    $$sudo apt-get update -qq && \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: pyproject.toml | .venv/.apt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/.native: .venv/.installed $(C_FILES)
	$(BIN)/python -W ignore -c 'from setuptools import setup; setup()' --quiet build_ext --inplace
	@touch $@

# A daemon that runs as a service user cannot write bytecode: without it, a start takes a quarter of a second longer.
.venv/.bytecode: .venv/.native $(PYTHON_FILES)
	@$(BIN)/python -m compileall -q pipeline cffi_build
	@touch $@

# ---------------------------------------------------------------- use

demo: setup
	@$(BIN)/pipeline demo

# Tests that use one core run two at a time.  Most tests in namespaces measure times, so nothing else runs beside them.
test: setup
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=recurse apart
	@timeout --foreground --kill-after=30 $(MINUTES)m $(BIN)/pytest --ignore=tests/unit --ignore=tests/sim \
	    $(addprefix --ignore=,$(UNTIMED)) --junit-xml=$(REPORTS)/netns.xml

apart: unit lint fuzz untimed

# Tests in namespaces that measure no times.
untimed: setup
	@timeout --foreground --kill-after=30 $(MINUTES)m $(BIN)/pytest --junit-xml=$(REPORTS)/untimed.xml $(UNTIMED)

unit: native
	@timeout --foreground --kill-after=30 $(MINUTES)m $(BIN)/pytest --junit-xml=$(REPORTS)/unit.xml tests/unit tests/sim

# Built before `unit` and `lint`, which run at the same time: a unit test uses the guard, `lint` the other programs.
native: setup
	@if [ -f tests/native/Makefile ]; then $(MAKE) --no-print-directory -C tests/native guard build; fi

lint: native
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-cache | tail -n 4; exit $${PIPESTATUS[0]}
	@if [ -f tests/native/Makefile ]; then $(MAKE) --no-print-directory -C tests/native test; fi

fuzz: setup
	@$(MAKE) --no-print-directory -C tests/fuzz run SECONDS=$(FUZZ_SECONDS)

perf: setup
	@$(BIN)/python -m perf

clean:
	rm -rf .venv build dist *.egg-info cffi_build/generated pipeline/shm/_native*.so .mypy_cache .ruff_cache \
	    .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
	@if [ -f tests/native/Makefile ]; then $(MAKE) --no-print-directory -C tests/native clean; fi
