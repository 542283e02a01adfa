"""An upgrade as the controller sees it, while the supervisor leads it.

The old one says when there is an upgrade, and what is known of servers. The new one makes sure that it could serve.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence

from lbproxy.control.caller import Caller
from lbproxy.control.kept_data import Unreadable
from lbproxy.control.status import Json
from lbproxy.process.controller import Controller
from lbproxy.process.upgrade.handing import READY_S, Heir, Upgrading
from lbproxy.process.upgrade.starting import Failed
from lbproxy.process.upgrade.taking_over import CHECKED_S, COLUMNS, unreadable
from lbproxy.process.worker import StartError
from lbproxy.process.workers.lines import Said
from lbproxy.process.workers.station import Setup
from lbproxy.tasks import Tasks
from lbproxy.telemetry.slots import Row

log = logging.getLogger("lbproxy")


class Succession:
    """lock: see Upgrading. row: the PROCESS counters of this process, counted: those of all that were here. end: set
    when this process is to end. leave: another lbproxy serves."""

    def __init__(
        self,
        setup: Setup,
        controller: Controller,
        tasks: Tasks,
        lock: asyncio.Lock,
        row: Row,
        counted: Callable[[], Row],
        end: asyncio.Event,
        leave: Callable[[Heir], None],
    ) -> None:
        self._setup = setup
        self._controller = controller
        self._tasks = tasks
        self._row = row
        self._end = end
        self._leave = leave
        self._may_serve = asyncio.Event()
        self._refused: StartError | None = None
        self._is_stopping = False
        self._answer: asyncio.Future[Heir] | None = None
        self._upgrading: Upgrading[Heir] = Upgrading(
            hand_over=self._hand_over,
            refusal=self._why_not,
            lock=lock,
            tasks=tasks,
            row=row,
            tell=lambda text, by: controller.events.add("process", text, by=by),
            handed_over=leave,
            counts=counted,
            pid=os.getppid(),
        )

    # --- a new one --------------------------------------------------------------------------------------------------

    async def take_over(self) -> None:
        """Make sure that this lbproxy can serve, and wait until it is to, or is to end. Raises StartError."""
        setup, controller = self._setup, self._controller
        if setup.is_first:
            for column, count in zip(COLUMNS, setup.counts, strict=False):
                self._row[column] = count
            self._row[COLUMNS[0]] += 1  # the one that it is made by
            await controller.checked(CHECKED_S)
            why = controller.lacking()
            if why is not None and setup.was_ready:
                raise StartError(f"the process before was ready, and this one is not: {why}")
        setup.line.say("prepared")
        ended = self._tasks.spawn(self._end.wait(), "the end")
        told = self._tasks.spawn(self._may_serve.wait(), "upgrade: go")
        try:
            await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            told.cancel()
        if self._refused is not None:
            raise self._refused
        if not self._end.is_set():
            controller.running()

    def update(self, said: Said) -> None:
        """The last that the lbproxy before says."""
        try:
            self._controller.keeping.update(said.loaded())
        except Unreadable as error:
            self._refused = StartError(unreadable(error))
            self._may_serve.set()
        else:
            self._setup.line.say("updated")

    def serve(self, _said: Said) -> None:
        """All workers do."""
        self._may_serve.set()

    # --- the old one ------------------------------------------------------------------------------------------------

    async def call(self, caller: Caller) -> tuple[int, Json]:
        """The answer of the admin API."""
        return await self._upgrading.upgrade(str(caller))

    def signalled(self, _said: Said) -> None:
        """SIGUSR2 came."""
        self._tasks.spawn(self._upgrading.upgrade("SIGUSR2"), "upgrade asked")

    def stopping(self) -> None:
        """This lbproxy was told to stop."""
        self._is_stopping = True
        self._tasks.spawn(self._upgrading.abort("lbproxy was told to stop"), "upgrade: the end")

    def _why_not(self) -> str | None:
        if self._is_stopping:
            return "lbproxy is stopping"
        if self._setup.config_path == "-":
            return "the config came from standard input, which another process could not read again"
        return None

    async def _hand_over(self, counts: Sequence[int]) -> Heir:
        """See HandOver."""
        self._answer = asyncio.get_running_loop().create_future()
        controller, line = self._controller, self._setup.line
        told = {"ready": controller.ready_reason() is None, "counts": list(counts)}
        line.say_all("upgrade", {**told, "states": controller.keeping.snapshot()})
        try:
            return await self._answer
        except BaseException as error:
            if not isinstance(error, Failed):
                line.say("abort", (str(error) or f"not ready within {READY_S:g} s").encode())
            controller.keeping.serve()
            raise
        finally:
            self._answer = None

    def last(self, _said: Said) -> None:
        """The next lbproxy could serve, and is to know what is known by now."""
        self._tasks.spawn(self._say_last(), "upgrade: the last states")

    async def _say_last(self) -> None:
        self._setup.line.say_all("last", await self._controller.keeping.last_snapshot())

    def failed(self, said: Said) -> None:
        """There is no other lbproxy."""
        problems = said.loaded()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Failed(*problems))

    def handed_over(self, said: Said) -> None:
        """It serves."""
        heir = Heir(*said.loaded())
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(heir)
        else:  # it did so in the last moment, or the controller that has asked for it is no more
            self._leave(heir)
