"""Threads for what may block: they never delay the end of the process.

`asyncio.to_thread` uses the loop's executor, and with the standard one asyncio and the interpreter both wait at the end
for each call that is at work. A file system that hangs, or a plug-in that does, then keeps lbproxy from ending at
SIGTERM.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

import uvloop

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 8


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop of lbproxy: uvloop, with an executor that nobody waits for."""
    loop = uvloop.new_event_loop()
    loop.set_default_executor(DaemonThreads())
    return loop


class DaemonThreads(ThreadPoolExecutor):
    """An executor whose shutdown leaves what is at work to itself.

    most: calls at work at once. Others wait for their turn, in order; what nobody waits for any more is forgotten.
    """

    def __init__(self, most: int = MAX_THREADS) -> None:
        super().__init__(most)  # asyncio accepts no other kind; nothing else of it is used
        self._most = most
        self._gate = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._n_at_work = 0
        self._has_ended = False

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Raises RuntimeError after the shutdown, and where the system has no thread left."""
        future: Future[T] = Future()
        with self._gate:
            if self._has_ended:
                raise RuntimeError("the process is about to end")
            if self._n_at_work < self._most:
                threading.Thread(target=self._work, name="blocking-calls", daemon=True).start()
                self._n_at_work += 1
            self._waiting = deque(call for call in self._waiting if not call[0].cancelled())
            self._waiting.append((future, partial(function, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel what waits for its turn. Never waits."""
        with self._gate:
            self._has_ended = True
            waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            future.cancel()

    def _work(self) -> None:
        """Make the calls that wait, then end."""
        while True:
            with self._gate:
                if not self._waiting:
                    self._n_at_work -= 1
                    return
                future, call = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # a plug-in may call sys.exit(): whoever waits must hear of it
                future.set_exception(error)
            else:
                future.set_result(result)
