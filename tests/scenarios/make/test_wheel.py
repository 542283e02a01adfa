"""A wheel that `make wheel` has built is installed where there is no compiler, and runs compiled."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import hatch_build
from tests.support import build
from tests.support.build import ROOT


def run(*command: str | Path, path: str = os.environ["PATH"], **env: str) -> str:
    done = build.run(command, {"PATH": path, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_wheel_needs_no_compiler(tmp_path: Path) -> None:
    # As the Makefile does it, with the tools that are here; tests/scenarios/deploy/test_image.py has them installed.
    # What `make setup` compiled is taken from its cache.
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--no-input"]
    run(
        *pip,
        *("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", tmp_path, "."),
        LBPROXY_COMPILE="require",
        LBPROXY_COMPILE_CACHE=build.COMPILE_CACHE,
    )
    [wheel] = tmp_path.glob("*.whl")
    number = f"{sys.version_info.major}{sys.version_info.minor}"
    # No manylinux: it runs where the C library is as new as on the machine that built it.
    assert re.fullmatch(rf"lbproxy-[\d.]+-cp{number}-cp{number}-linux_{platform.machine()}\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    modules = [re.sub(r"\.py$", "", name) for name in hatch_build.compiled_sources()]
    libraries = {name.partition(".")[0] for name in names if name.endswith(".so")}
    assert libraries == {*modules, "lbproxy__mypyc"}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "lbproxy/control/dashboard/static").iterdir()}
    assert pages and pages <= set(names)

    nowhere = tmp_path / "bin"
    nowhere.mkdir()
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    python = str(venv / "bin/python")
    # What lbproxy needs is wheels too, and here already: what is asked is whether this one installs.
    run(*pip, "--python", python, "install", "--no-deps", "--only-binary=:all:", wheel, path=str(nowhere))
    [site] = venv.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(f"{sysconfig.get_path('platlib')}\n")
    said = run(venv / "bin/lbproxy", "check", "config/sidecar.yaml", path=str(nowhere))
    assert said.startswith("config/sidecar.yaml: ok (")
    where = run(python, "-P", "-c", "import lbproxy.domain.pool as pool; print(pool.__file__)")
    assert where.startswith(str(venv)) and where.rstrip().endswith(".so")
