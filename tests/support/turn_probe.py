"""A strategy that measures each turn of the event loop that it is used in, in seconds of that thread's CPU.

So the numbers hold however busy the machine is. It begins with the first request, keeps the loop awake from then on,
and appends a line for each turn of at least LEAST_S to the file of its option `path`: when it began, in seconds of the
monotonic clock, which all processes share, and how long it took.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LEAST_S = 0.0002


class Probe:
    """The first server that may get it."""

    def __init__(self, options: Mapping[str, Any], rng: random.Random) -> None:
        self._path = str(options["path"])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._began = self._cpu_s = 0.0

    def rebuild(self, servers: Sequence[Any]) -> None:
        pass

    def pick(self, eligible: Sequence[Any], ctx: Any, now: float) -> Any:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._began, self._cpu_s = time.monotonic(), time.thread_time()
            self._loop.call_soon(self._turn)
        return eligible[0] if eligible else None

    def _turn(self) -> None:
        assert self._loop is not None
        took_s = time.thread_time() - self._cpu_s
        if took_s >= LEAST_S:
            with open(self._path, "a") as file:
                file.write(f"{self._began:.6f} {took_s:.6f}\n")
        self._began, self._cpu_s = time.monotonic(), time.thread_time()
        self._loop.call_soon(self._turn)


def turns(path: Path, began: float, ended: float) -> list[float]:
    """Of those that began between these times the lengths, in seconds, the longest first."""
    found = [(float(at), float(took_s)) for at, took_s in (line.split() for line in path.read_text().splitlines())]
    return sorted((took_s for at, took_s in found if began <= at <= ended), reverse=True)
