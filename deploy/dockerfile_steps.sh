#!/usr/bin/env bash
# Performs the steps of the Dockerfile without Docker, in a temporary directory, and tests the result: the command starts,
# balances, passes its HEALTHCHECK, and ends with 0 on SIGTERM. For machines (and test runs) that have no Docker.
# Uses the interpreter in $PYTHON, or .venv's, or python3 (3.11 or newer).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3)
exec "$python" "$here/dockerfile_steps.py" "$@"
