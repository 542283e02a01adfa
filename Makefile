# Needs python 3.11 or newer, git and a C compiler. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS_STAMP := $(VENV)/.tools
# The first of these that is new enough; `make PYTHON=/path/to/python3 ...` overrides it.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
# command=Debian package: other programs that tests and benchmarks drive or compare with
TOOLS := haproxy=haproxy nginx=nginx-light wrk=wrk ab=apache2-utils prometheus=prometheus promtool=prometheus curl=curl \
	openssl=openssl psql=postgresql-client redis-server=redis-server redis-benchmark=redis-tools redis-cli=redis-tools \
	iperf3=iperf3
# Packages that bring no command, or none on the PATH.
MODULES := libnginx-mod-stream postgresql
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.PHONY: help setup system run test bench soak fuzz format docs-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with lbproxy, compiled as users get it, and all development tools

# Again after each change of the sources: this is the lbproxy that `make run`, the scenario tests and the benchmarks start.
$(STAMP): $(TOOLS_STAMP) hatch_build.py $(shell find lbproxy -type f ! -name '*.pyc')
	@echo "compiling and installing lbproxy (a minute)"
	@LBPROXY_COMPILE=$${LBPROXY_COMPILE:-$${CI:+require}} $(PIP) install --no-deps --force-reinstall .
	@[ -n "$$(find $(VENV) -path '*/lbproxy/dataplane/*.so' -print -quit)" ] || \
		echo "it runs interpreted; LBPROXY_COMPILE=require make setup says why it is not compiled" >&2
	@touch $@

$(TOOLS_STAMP): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "lbproxy needs Python 3.11 or newer; found: $$(python3 --version 2>&1). Try: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); lbproxy needs Python 3.11 or newer" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || { \
		echo "creating $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear $(VENV) || { \
			echo "creating a virtual environment failed; on Debian and Ubuntu install python3-venv" >&2; exit 1; }; }
	@echo "installing what lbproxy needs, and its development tools, into $(VENV)"
	@$(PIP) install --upgrade pip
	@LBPROXY_COMPILE=no $(PIP) install '.[demo,dev]'
	@touch $@

system: ## install the programs that tests and benchmarks drive (haproxy, redis, postgresql ...)
	@missing=; for tool in $(TOOLS); do \
		program=$${tool%%=*}; \
		PATH="$$PATH:/usr/sbin:/sbin" command -v "$$program" >/dev/null || missing="$$missing $${tool#*=}"; \
	done; \
	for module in $(MODULES); do \
		dpkg -s "$$module" >/dev/null 2>&1 || missing="$$missing $$module"; \
	done; \
	missing=$$(printf '%s\n' $$missing | sort -u | xargs); \
	[ -n "$$missing" ] || exit 0; \
	as_root=; \
	if [ "$$(id -u)" != 0 ]; then \
		if sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then as_root=sudo; else as_root=none; fi; \
	fi; \
	if ! command -v apt-get >/dev/null || [ "$$as_root" = none ]; then \
		echo "some tests need programs that are missing; install these (Debian names): $$missing" >&2; exit 0; \
	fi; \
	echo "installing $$missing"; \
	log=$$(mktemp); \
	if $$as_root apt-get update -qq >"$$log" 2>&1 && \
		$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >>"$$log" 2>&1; \
	then rm -f "$$log"; \
	else tail -n 5 "$$log" >&2; rm -f "$$log"; echo "could not install $$missing: tests that need them cannot pass" >&2; fi

run: setup ## three Flask predict servers on 5001-5003 and lbproxy on 5000; Ctrl-C stops all
	@exec $(BIN)/lbproxy demo --config config/flask.yaml --servers 127.0.0.1:5001-5003

# All steps run, so that a slip in formatting does not hide what the tests say.
test: setup system ## everything that a change must pass: format, lint, types, import rules, tests
	@failed=; \
	step() { echo "-- $$*"; $(BIN)/"$$@" || failed="$$failed$${failed:+, }$$*"; }; \
	step ruff format --check .; \
	step ruff check --quiet .; \
	step mypy; \
	step lint-imports; \
	step pytest $(PYTEST_ARGS); \
	if [ -n "$$failed" ]; then echo "make test: failed: $$failed" >&2; exit 1; fi

bench: setup system ## measure speed and balance; writes benchmarks/out
	@mkdir -p benchmarks/out
	@$(BIN)/python -m benchmarks.micro | tee benchmarks/out/micro.txt
	@$(BIN)/python -P benchmarks/installed.py benchmarks.micro.hot_path | tee -a benchmarks/out/micro.txt
	@$(BIN)/python -m benchmarks.micro.checks | tee -a benchmarks/out/micro.txt
	@$(BIN)/python -P benchmarks/installed.py benchmarks.micro.tls | tee -a benchmarks/out/micro.txt
	@$(BIN)/python -m benchmarks.balancing --json benchmarks/out/balancing.json --markdown benchmarks/out/balancing.md
	@$(BIN)/python -m benchmarks.load --json benchmarks/out/load.json --markdown benchmarks/out/load.md $(BENCH_ARGS)

soak: setup ## an hour of gunicorns that restart, and of kills, stalls, resets and aborts at random
	@$(BIN)/python -m tests.soak gunicorn --worker-class gthread
	@$(BIN)/python -m tests.soak gunicorn --worker-class sync
	@$(BIN)/python -m tests.soak chaos

fuzz: setup ## a million heads against h11, then the property tests for much longer than in `make test`
	@$(BIN)/python -m tests.fuzz.run $(FUZZ_ARGS)
	@$(BIN)/pytest -m hypothesis --hypothesis-profile=fuzz --timeout=0 $(PYTEST_ARGS)

format: setup ## rewrite the code in the house format
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

docs-check: setup ## links, targets, options and config examples in the docs
	@$(BIN)/pytest --quiet tests/architecture/test_docs.py tests/unit/test_docs_yaml.py

clean: ## remove everything that the other targets made
	@rm -rf $(VENV) build dist benchmarks/out .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
