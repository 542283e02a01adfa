"""The image that the Dockerfile describes works: its steps are performed without Docker and the result is used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.architecture.rules import ROOT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_steps_of_the_dockerfile_make_a_working_image() -> None:
    done = subprocess.run(
        [ROOT / "deploy/dockerfile_steps.sh"],
        env={**os.environ, "PYTHON": sys.executable, "LBPROXY_COMPILE": "no"},  # `make setup` has just done that
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checked = [line for line in done.stdout.splitlines() if line.startswith("ok: ")]
    assert [line for line in checked if "SIGTERM ends it with status 0" in line]
    assert len(checked) == 5, done.stdout
