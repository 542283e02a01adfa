"""Nothing in lbproxy is there for nobody: what only tests use goes, and its tests with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import unused
from tests.architecture.rules import PACKAGE, ROOT, modules

# Used by somebody whom this does not see, by whom. Take out what is used by name or gone.
SEEN_BY_OTHERS = {
    "lbproxy/_client.py: _UnixConnection.sock": "http.client reads it",
    "lbproxy/domain/shared/cells.py: NearCells._kept": "the memory stays where it is as long as it is there",
    "lbproxy/config/notation.py: Section.model_config": "pydantic reads it",
    "lbproxy/config/server_model.py: StrategySpec.model_config": "pydantic reads it",
    "lbproxy/control/kept_data.py: _Data.model_config": "pydantic reads it",
    "lbproxy/process/threads.py: DaemonThreads.submit": "asyncio calls it",
    "lbproxy/telemetry/log.py: DirectHandler.emit": "logging calls it",
    "lbproxy/telemetry/log.py: WriterHandler.emit": "logging calls it",
}
FOR_OTHERS = (
    "lbproxy/cli/top_screen.py",  # textual reads its settings and calls its methods by name
    "lbproxy/demo/gunicorn_settings.py",  # gunicorn reads all of it
    "lbproxy/testing/",  # what tests of other programs use
)


def found() -> set[str]:
    def read(folder: Path) -> dict[str, str]:
        return {path.relative_to(ROOT).as_posix(): path.read_text() for path in modules(folder)}

    def names(sources: dict[str, str]) -> set[str]:
        return {f"{path}: {item}" for path, item in unused.unused(sources) if not path.startswith(FOR_OTHERS)}

    return names(read(PACKAGE))


def test_nothing_is_there_for_nobody() -> None:
    names = found()
    assert sorted(names - SEEN_BY_OTHERS.keys()) == [], "delete it, or say who uses it"
    assert sorted(SEEN_BY_OTHERS.keys() - names) == [], "used, or gone: take it off the list"


USED = """
class Base:
    def step(self): ...

class A(Base):
    __slots__ = ("x", "y", "z")
    def __init__(self):
        self.x = 1
        self.y, self.z = 2, 3
    def step(self):
        return self.x
    def counted(self):
        self.z += 1

class B:
    def __init__(self):
        self.x = 2

def run(a: A):
    Base.step(a)
    return getattr(a, "counted")()

LIMIT = 5
run(A()), B()
"""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", {"A.y", "A.z", "B.x", "LIMIT"}),
        ("LIMIT.y", {"A.z", "B.x"}),
        ("import m\nm.LIMIT, m.z", {"A.y", "B.x"}),
        ("def f(b: B, y):\n    'y: z'\n    return b.x, y, 'LIMIT'", {"A.y", "A.z", "f"}),
        ("@app.route\ndef f(): ...\nclass C(B):\n    def g(self): return self.x", {"A.y", "A.z", "LIMIT", "C", "C.g"}),
    ],
)
def test_what_is_unused(more: str, expected: set[str]) -> None:
    assert {str(item) for _, item in unused.unused({"a.py": USED, "b.py": more})} == expected
