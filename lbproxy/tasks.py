"""Tasks with an owner.

`asyncio.create_task` forgets a task that nobody holds, and an exception in it is printed when the garbage collector
finds it, or never. A TaskGroup cancels its siblings. Neither suits a daemon, so every task belongs to a Tasks object:
it keeps the reference, reports a crash at once, and is cancelled as a whole at the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from lbproxy.compiling import mypyc_attr

log = logging.getLogger("lbproxy")


@mypyc_attr(allow_interpreted_subclasses=True)
class Tasks:
    """A set of running tasks that end together."""

    __slots__ = ("_on_crash", "_tasks")

    def __init__(self, on_crash: Callable[[BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_crash = on_crash

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a coroutine; its crash is logged with the traceback and reported to `on_crash`."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        log.error("task %s crashed", task.get_name(), exc_info=error)
        if self._on_crash is not None:
            self._on_crash(error)

    async def cancel_all(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._tasks)
