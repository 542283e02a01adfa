"""Who asks for another config: the admin API, SIGHUP, and the file itself where `watch` says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable

from lbproxy.control.caller import Caller
from lbproxy.control.status import Json
from lbproxy.process.config_watch import ConfigWatch
from lbproxy.process.manager import Manager
from lbproxy.process.reloading import Reloading
from lbproxy.tasks import Tasks

log = logging.getLogger("lbproxy")


class ReloadRequests:
    """See the module. manager: is told of each reload. config_path: "" or "-" if there is no file to watch. kill: sends
    a signal to another process."""

    def __init__(
        self,
        reloading: Reloading,
        manager: Manager,
        tasks: Tasks,
        config_path: str,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self._reloading = reloading
        self._manager = manager
        self._tasks = tasks
        self._config_path = config_path
        self._kill = kill
        self._asked: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def call(self, caller: Caller, is_dry: bool) -> tuple[int, Json]:
        """The answer of the admin API."""
        return await (self._reloading.dry_run() if is_dry else self._reload(str(caller)))

    def signal(self) -> None:
        """SIGHUP came."""
        if len(self._asked) < 2:  # one at work, which may have read the file already, and one behind it
            task = self._tasks.spawn(self._signalled(), "reload")
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)

    async def _signalled(self) -> None:
        await self._reload("SIGHUP")

    def hand_over(self, pid: int) -> None:
        """This process serves from now on. What has waited until that was known is its: it may have read the file
        before that was changed."""
        self.watch(False)
        if self._asked:
            for task in self._asked:
                task.cancel()
            log.info("SIGHUP: passed on to the process %d, which serves now", pid)
            with contextlib.suppress(ProcessLookupError):
                self._kill(pid, signal.SIGHUP)

    async def _reload(self, by: str) -> tuple[int, Json]:
        self._manager.reloading()
        try:
            return await self._reloading.reload(by)
        finally:
            self._manager.ready("serving" if self._reloading.is_last_good else "serving; the last reload failed")

    def watch(self, is_wanted: bool) -> None:
        """Look at the file from now on, or no more."""
        is_wanted = is_wanted and self._config_path not in ("", "-")
        if not is_wanted and self._watching is not None:
            self._watching.cancel()
            self._watching = None
        elif is_wanted and self._watching is None:
            watch = ConfigWatch(self._config_path, lambda: self._reloading.digest, lambda: self._reload("watch"))
            self._watching = self._tasks.spawn(watch.run(), "config file")
