"""What is over must be freed by reference counting alone: cycles wait for the garbage collector, and memory grows.

In one process, `without_collector` watches objects. For a whole daemon there is `CollectorlessDaemon`, whose collector
never runs unless a test asks: `python -m tests.support.collector DIRECTORY ARGUMENTS...` runs the real command so.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemon import LbProxy
from tests.support.waiting import wait_until

_POLL_S = 0.02


class Watched:
    """Objects that must be gone. Only their ids are kept: the protocol objects have slots and no weak references."""

    def __init__(self) -> None:
        self._ids: dict[int, type] = {}

    def watch(self, *objects: object) -> None:
        for one in objects:
            assert gc.is_tracked(one), f"{one!r} is not seen by the collector"
            self._ids[id(one)] = type(one)

    def left(self) -> list[str]:
        """The types of those that are still there."""
        return [type(one).__name__ for one in gc.get_objects() if self._ids.get(id(one)) is type(one)]


@contextlib.contextmanager
def without_collector() -> Iterator[Watched]:
    """No collection during the block; at its end nothing that is watched may be there."""
    watched = Watched()
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield watched
        left = watched.left()
        assert not left, f"only the collector would free {left}"
    finally:
        if was_enabled:
            gc.enable()


class CollectorlessDaemon(LbProxy):
    """The daemon without automatic collections."""

    def _program(self) -> list[str]:
        return [sys.executable, "-m", "tests.support.collector", str(self.directory)]

    def garbage(self) -> dict[str, int]:
        """Collect now: how many objects of each of lbproxy's and the transports' types were in cycles."""
        answer = self.directory / "garbage"
        answer.unlink(missing_ok=True)
        (self.directory / "collect").touch()
        wait_until(answer.exists, "the daemon to collect")
        found: dict[str, int] = json.loads(answer.read_text())
        return found


def _serve(directory: Path) -> None:
    """Collect for each file `collect`; a thread, because the main thread is the daemon's."""
    while True:
        time.sleep(_POLL_S)
        if (directory / "collect").exists():
            (directory / "collect").unlink()
            part = directory / "garbage.part"
            part.write_text(json.dumps(_collected()))
            part.rename(directory / "garbage")


def _collected() -> dict[str, int]:
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    found = Counter(name for name in names if name.startswith(("lbproxy.", "uvloop.", "asyncio.")))
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()
    return dict(found)


def main(arguments: list[str]) -> int:
    gc.disable()
    threading.Thread(target=_serve, args=(Path(arguments[0]),), daemon=True).start()
    from lbproxy.cli import main as command

    sys.argv = ["lbproxy", *arguments[1:]]
    return command()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
