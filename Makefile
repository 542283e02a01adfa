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
	iperf3=iperf3 uwsgi=uwsgi-plugin-python3 valgrind=valgrind chromium=chromium zsh=zsh fish=fish \
	h2load=nghttp2-client nghttp=nghttp2-client nghttpd=nghttp2-server
# Packages that bring no command, or none on the PATH.
MODULES := libnginx-mod-stream postgresql
# Processes that run tests: as many as processors for what computes, twice as many for what mostly waits. With more of them
# tests that measure time or start many processes fail for want of a processor.
CPUS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WORKERS ?= $(shell echo $$((2 * $(CPUS))))
PARALLEL := -n $(CPUS) --dist worksteal
# Reading configs is never compiled, and imports nothing compiled but addresses: once is enough for its unit tests.
INTERPRETED := --ignore=tests/unit/config
UNITS := tests/unit tests/architecture tests/fuzz
SUITES := $(UNITS) tests/scenarios
# The files in which a test stands alone, or only beside those that wait as it does: to read all the others for them takes longer than some of them do.
ALONE = $(shell grep -rl --include='test_*.py' 'mark\.alone' tests/scenarios)
QUIET = $(shell grep -rl --include='test_*.py' 'mark\.quiet' tests/scenarios)
export PIP_ROOT_USER_ACTION := ignore
# Tests install lbproxy several times; the same sources are compiled once.
export LBPROXY_COMPILE_CACHE ?= $(abspath $(VENV))/.compiled
# Set, as images of Python have it, each of the processes that run tests would compile every test anew: 5 to 10 s of CPU.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup system run test wheel pythons bench instructions soak fuzz format docs-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with lbproxy, compiled as users get it, and all development tools

# Again after each change of the sources: this is the lbproxy that `make run`, the scenario tests and the benchmarks start.
$(STAMP): $(TOOLS_STAMP) hatch_build.py $(shell find lbproxy -type f ! -name '*.pyc')
	@echo "compiling and installing lbproxy (two to five minutes, unless these sources were compiled before)"
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

# SYSTEM=no: nothing is installed, and tests that need a program that is missing are skipped (on a build server they fail).
system: ## install the programs that tests and benchmarks drive (haproxy, redis, postgresql ...); SYSTEM=no: do not
	@[ "$(SYSTEM)" != no ] || { echo "SYSTEM=no: programs that tests drive are not installed"; exit 0; }; \
	missing=; for tool in $(TOOLS); do \
		program=$${tool%%=*}; \
		PATH="$$PATH:/usr/sbin:/sbin" command -v "$$program" >/dev/null || missing="$$missing $${tool#*=}"; \
	done; \
	for module in $(MODULES); do \
		dpkg -s "$$module" >/dev/null 2>&1 || missing="$$missing $$module"; \
	done; \
	tests/support/system.sh $$(printf '%s\n' $$missing | sort -u)

run: setup ## three Flask predict servers on 5001-5003 and lbproxy on 5000; Ctrl-C stops all
	@exec $(BIN)/lbproxy demo --config config/flask.yaml --servers 127.0.0.1:5001-5003

# All steps run, so that a slip in formatting does not hide what the tests say. Unit tests run twice: with the sources, and
# with what is installed, which is compiled; simulations, which compute for long, only there. Scenarios mostly wait, so there
# are more of them at once than processors; those that need a quiet machine wait nearly always, so all of these are at once.
# The linters, which use one processor, run beside the first unit tests. In a new
# checkout one process compiles all tests before that, also beside the linters: each of the processes that run tests would,
# 50 s of CPU instead of 20.
test: setup system ## everything that a change must pass: format, lint, types, import rules, tests
	@failed=; began=$$(date +%s); \
	step() { echo "-- $$* ($$(($$(date +%s) - began)) s)"; $(BIN)/"$$@" || failed="$$failed$${failed:+, }$$*"; }; \
	lint=$$(mktemp -d); \
	{ step ruff format --check .; step ruff check --quiet .; step mypy; step lint-imports; \
		printf %s "$$failed" >"$$lint/failed"; } >"$$lint/said" 2>&1 & \
	[ -n "$$(find tests/unit -name '*-pytest-*.pyc' -print -quit)" ] || \
		$(BIN)/pytest --quiet --collect-only $(SUITES) >/dev/null 2>&1; \
	step pytest $(PARALLEL) -m 'not simulation' $(UNITS) $(PYTEST_ARGS); \
	wait $$!; cat "$$lint/said"; found=$$(cat "$$lint/failed") || found=linters; rm -r "$$lint"; \
	failed="$$found$${failed:+$${found:+, }}$$failed"; \
	step pytest $(PARALLEL) tests/unit --under-test installed $(INTERPRETED) $(PYTEST_ARGS); \
	step pytest -n $(WORKERS) --dist worksteal -m 'not alone and not quiet' tests/scenarios $(PYTEST_ARGS); \
	step pytest -n 6 -m quiet $(QUIET) $(PYTEST_ARGS); \
	step pytest -m alone $(ALONE) $(PYTEST_ARGS); \
	echo "-- $$(($$(date +%s) - began)) s"; \
	if [ -n "$$failed" ]; then echo "make test: failed: $$failed" >&2; exit 1; fi

wheel: $(TOOLS_STAMP) ## dist/*.whl for this Python version and processor: whoever installs it needs no compiler
	@LBPROXY_COMPILE=require $(PIP) wheel --no-deps --wheel-dir dist .
	@ls dist/*.whl

pythons: ## compile, install and run the unit tests with each Python from 3.11 on that this machine has
	@tests/support/pythons.sh

bench: setup system ## measure speed, latency, memory and balance; writes benchmarks/out
	@mkdir -p benchmarks/out
	@$(BIN)/python -m benchmarks.micro | tee benchmarks/out/micro.txt
	@$(BIN)/python -P benchmarks/installed.py benchmarks.micro.hot_path | tee -a benchmarks/out/micro.txt
	@$(BIN)/python -m benchmarks.micro.checks | tee -a benchmarks/out/micro.txt
	@$(BIN)/python -P benchmarks/installed.py benchmarks.micro.bodies | tee -a benchmarks/out/micro.txt
	@$(BIN)/python -P benchmarks/installed.py benchmarks.micro.tls | tee -a benchmarks/out/micro.txt
	@$(BIN)/python -P benchmarks/installed.py benchmarks.micro.h2_codec | tee -a benchmarks/out/micro.txt
	@$(BIN)/python -m benchmarks.balancing --json benchmarks/out/balancing.json --markdown benchmarks/out/balancing.md
	@$(BIN)/python -m benchmarks.load --json benchmarks/out/load.json --markdown benchmarks/out/load.md $(BENCH_ARGS)
	@$(BIN)/python -m benchmarks.h2 --json benchmarks/out/h2.json --markdown benchmarks/out/h2.md
	@$(BIN)/python -m benchmarks.latency --json benchmarks/out/latency.json --markdown benchmarks/out/latency.md
	@$(BIN)/python -m benchmarks.memory --json benchmarks/out/memory.json --markdown benchmarks/out/memory.md

instructions: setup system ## count the instructions of each kind of request anew, and record them for `make test`
	@$(BIN)/python -m benchmarks.instructions --record

soak: setup ## hours of servers that restart, of kills, stalls, resets and aborts at random, a million hostile heads, a hundred reloads, ten upgrades, an attack on the admin address, floods of HTTP/2, and fleets of AWS, Kubernetes and Redis that change and fail
	@$(BIN)/python -m tests.soak gunicorn --worker-class gthread
	@$(BIN)/python -m tests.soak gunicorn --worker-class sync
	@$(BIN)/python -m tests.soak chaos
	@$(BIN)/python -m tests.soak chaos --workers 4 --warm-up 60
	@$(BIN)/python -m tests.soak hostile
	@LBPROXY_RELOADS=100 $(BIN)/pytest -q --timeout=0 -rP tests/scenarios/process/test_reload_load.py
	@LBPROXY_RELOAD_SEEDS=30 $(BIN)/pytest -q --timeout=0 tests/scenarios/process/test_reload_random.py
	@LBPROXY_UPGRADES=10 $(BIN)/pytest -q --timeout=0 -rP tests/scenarios/process/upgrade/test_upgrade_load.py
	@LBPROXY_UPGRADE_STEPS=all $(BIN)/pytest -q --timeout=0 tests/scenarios/process/upgrade/test_upgrade_killed.py
	@LBPROXY_GRPC_RATE=200 LBPROXY_GRPC_ROUNDS=5 $(BIN)/pytest -q --timeout=0 -rP tests/scenarios/programs/test_grpc_restarts.py
	@LBPROXY_SERVER_RELOADS=50 $(BIN)/pytest -q --timeout=0 -rP tests/scenarios/programs/test_http2_servers.py
	@LBPROXY_STRICT=1 $(BIN)/pytest -q --timeout=0 -rP tests/scenarios/control/test_dashboard_cost.py
	@LBPROXY_ATTACK_S=60 $(BIN)/pytest -q --timeout=0 -rP tests/scenarios/control/test_admin_attack.py
	@LBPROXY_FLOOD_ROUNDS=10 $(BIN)/pytest -q --timeout=0 -rP tests/scenarios/http/test_http2_floods_beside.py
	@LBPROXY_FLEET_S=60 $(BIN)/pytest -q --timeout=0 -rP tests/scenarios/control/discovery/test_aws_load.py \
		tests/scenarios/control/discovery/test_kubernetes_load.py tests/scenarios/control/fleet/test_limits_load.py \
		tests/scenarios/dataplane/exchange/test_sticky_load.py

fuzz: setup ## a million heads against h11, h2 and hpack, then the property tests for much longer than in `make test`
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)
	@$(BIN)/pytest -m hypothesis --hypothesis-profile=fuzz --timeout=0 $(PYTEST_ARGS)

format: setup ## rewrite the code in the house format
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

docs-check: setup ## links, targets, options and config examples in the docs
	@$(BIN)/pytest --quiet tests/architecture/test_docs.py tests/unit/test_docs_yaml.py

clean: ## remove everything that the other targets made
	@rm -rf $(VENV) build dist benchmarks/out .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
