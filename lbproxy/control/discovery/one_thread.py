"""Blocking work of a source, off the loop: one daemon thread at a time, with a time-out.

A daemon thread does not delay the end of the process, as those of an executor do. Work that is late goes on, since a
thread cannot be ended, and whoever comes meanwhile is told so: what hangs holds one thread and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class OneThread:
    """name: of the threads. timeout_s: for one piece of work, seconds."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._is_busy = False

    async def __call__(self, work: Callable[[], T]) -> T:
        """What `work` returns. Raises what it raises, and TimeoutError when it, or the work before, is late."""
        if self._is_busy:
            raise TimeoutError(f"what was asked before has had no answer for more than {self._timeout_s:g} s")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def finished(result: T | None, error: Exception | None) -> None:
            self._is_busy = False
            if future.done():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(error)

        def run() -> None:
            result: T | None = None
            error: Exception | None = None
            try:
                result = work()
            except Exception as caught:  # it is raised again where it is awaited
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody wants the answer
                loop.call_soon_threadsafe(finished, result, error)

        self._is_busy = True
        threading.Thread(target=run, name=self._name, daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from None
