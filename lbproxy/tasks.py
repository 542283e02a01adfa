"""Tasks with an owner.

`asyncio.create_task` forgets a task that nobody holds, and an exception in it is printed when the garbage collector
finds it, or never. A TaskGroup cancels its siblings. Neither suits a daemon, so every task belongs to a Tasks object:
it keeps the reference, reports a crash at once, and is cancelled as a whole at the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from lbproxy.compiling import mypyc_attr

log = logging.getLogger("lbproxy")

PATIENCE_S: Final = 2.0


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

    async def cancel_all(self, patience_s: float = PATIENCE_S) -> None:
        """Cancel what still runs and wait for it.

        A cancellation can be lost on the way (asyncio.wait_for of Python 3.11 loses one that comes with the result),
        and a process that waits for such a task would never end. So who still runs after patience_s is named in the
        log and cancelled again, as often as it takes.
        """
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        while tasks:
            _, tasks = await asyncio.wait(tasks, timeout=patience_s)
            for task in tasks:
                log.warning("task %s still runs %g s after it was cancelled; again", task.get_name(), patience_s)
                task.cancel()

    def __len__(self) -> int:
        return len(self._tasks)
