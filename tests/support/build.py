"""Which lbproxy is tested: the checkout's sources, or the one that is installed, as users have it.

Scenario tests start the installed one (`make setup` compiles it); `-P` keeps the sources from taking its place. Unit
tests import the sources, or, with `--under-test installed`, the installed one.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-P", "-m", "lbproxy")
COMPILE_CACHE = os.environ.get("LBPROXY_COMPILE_CACHE") or str(Path(sys.prefix, ".compiled"))  # as in the Makefile


def installed() -> Path | None:
    """The directory of the installed package; None for an editable install, which runs the checkout."""
    path = Path(sysconfig.get_path("platlib"), "lbproxy")
    return path if path.is_dir() else None


def run(command: Sequence[str | Path], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A command from the root of the checkout, with these variables more, and an end of all that it has started.

    What builds starts compilers, which would go on for minutes when the test is given up.
    """
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def what_is_wrong() -> str:
    """Why scenario tests would not test this checkout as users get it, or ""."""
    found = installed()
    if found is None:
        return "an editable install: scenario tests run interpreted code"
    theirs, ours = _sources(found), _sources(ROOT / "lbproxy")
    if theirs != ours:
        different = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        return f"the installed lbproxy differs from the checkout in {', '.join(different[:5])}: run `make setup`"
    if not list(found.glob("dataplane/*.so")):
        return "the installed lbproxy has no compiled modules"
    return ""


def _sources(package: Path) -> dict[str, bytes]:
    return {str(path.relative_to(package)): path.read_bytes() for path in package.rglob("*.py")}


def import_installed() -> None:
    """Import the installed lbproxy although the checkout comes first on the path: its modules follow their package."""
    assert "lbproxy" not in sys.modules, "lbproxy was imported before it was known which one is meant"
    path = sysconfig.get_path("platlib")
    sys.path.insert(0, path)
    try:
        importlib.import_module("lbproxy")
    finally:
        sys.path.remove(path)


def is_compiled() -> bool:
    """Does `import lbproxy` give compiled modules in this process?"""
    return Path(importlib.import_module("lbproxy.domain.pool").__file__ or "").suffix != ".py"


def imported() -> str:
    """In words: which lbproxy `import lbproxy` gives in this process."""
    package = Path(importlib.import_module("lbproxy").__file__ or "").parent
    return f"{package} ({'compiled' if is_compiled() else 'interpreted'})"
