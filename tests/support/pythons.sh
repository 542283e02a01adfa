#!/usr/bin/env bash
# Compiles, installs and tests lbproxy with each Python that it supports and that this machine has: on the PATH, from pyenv,
# from uv, or named in PYTHONS. LBPROXY_COMPILE=no leaves the compiling out. Says which were found and which not; fails if one
# fails, or if there is none.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=build/pythons
mkdir -p "$root"

# The path of a working interpreter of this version ("3.12"), or nothing.
find_python() {
	local candidate
	for candidate in ${PYTHONS:-} "$(command -v "python$1" || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python \
		"${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-"$1".*/bin/python3; do
		if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
			echo "$candidate"
			return
		fi
	done
}

try_python() {
	local python=$1 venv=$2
	"$python" -m venv --clear "$venv" || return 1
	local pip=("$venv/bin/python" -m pip -qq --disable-pip-version-check --no-input)
	"${pip[@]}" install --upgrade pip && LBPROXY_COMPILE=${LBPROXY_COMPILE:-require} "${pip[@]}" install '.[dev,demo]' || return 1
	"$venv/bin/python" -P -m lbproxy check config/sidecar.yaml &&
		"$venv/bin/pytest" -q -n "$(getconf _NPROCESSORS_ONLN)" --under-test installed -p no:cacheprovider tests/unit
}

passed='' failed='' absent=''
for version in 3.11 3.12 3.13 3.14; do
	python=$(find_python "$version")
	if [ -z "$python" ]; then absent="$absent $version"; continue; fi
	echo "-- $("$python" --version) ($python)"
	if try_python "$python" "$root/$version" 2>&1 | tee "$root/$version.log" | tail -n 15; then
		passed="$passed $version"
	else
		failed="$failed $version"
	fi
done
echo "passed:${passed:- none}; failed:${failed:- none}; no interpreter on this machine:${absent:- none}"
[ -z "$failed" ] && [ -n "$passed" ]
