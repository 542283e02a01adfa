"""The image that the Dockerfile describes works: its steps are performed without Docker and the result is used."""

from __future__ import annotations

import sys

import pytest

from tests.architecture.rules import ROOT
from tests.support import build


@pytest.mark.slow
@pytest.mark.timeout(400)  # if it must compile; usually `make setup` has just done that
def test_the_steps_of_the_dockerfile_make_a_working_image() -> None:
    env = {"PYTHON": sys.executable, "LBPROXY_COMPILE_CACHE": build.COMPILE_CACHE}
    # Packages are installed twice, for the build and for the image; Python compiles what little of them is imported.
    done = build.run([ROOT / "deploy/dockerfile_steps.sh"], {**env, "PIP_NO_COMPILE": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    checked = [line for line in done.stdout.splitlines() if line.startswith("ok: ")]
    assert [line for line in checked if "SIGTERM ends it with status 0" in line]
    assert "ok: its modules are compiled" in checked
    assert len(checked) == 6, done.stdout
