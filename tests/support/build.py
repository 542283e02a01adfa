"""Which lbproxy the scenario tests start: the one that is installed, as users have it. `make setup` compiles it.

Unit tests import the sources of the checkout. `-P` keeps these from taking the place of the installed package.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-P", "-m", "lbproxy")


def installed() -> Path | None:
    """The directory of the installed package; None for an editable install, which runs the checkout."""
    path = Path(sysconfig.get_path("platlib"), "lbproxy")
    return path if path.is_dir() else None


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
