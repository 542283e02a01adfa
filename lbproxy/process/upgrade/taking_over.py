"""Both sides of an upgrade as the process knows them: how it begins when it takes over, and leaves when it hands over.

What is said between the two processes is in arriving.py and handing.py; here it meets the parts of this one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from asyncio import Event, Lock
from collections.abc import Callable
from typing import Final

from lbproxy.control.caller import Caller
from lbproxy.control.kept_data import Unreadable
from lbproxy.control.status import Json
from lbproxy.process.controller import Controller
from lbproxy.process.listeners import Listeners
from lbproxy.process.outside import Outside
from lbproxy.process.upgrade.arriving import Arrival, NotWanted
from lbproxy.process.upgrade.channel import Broken, Gone
from lbproxy.process.upgrade.command import command
from lbproxy.process.upgrade.handing import HandingOver, Offer, Successor, Upgrading
from lbproxy.process.upgrade.starting import Patience
from lbproxy.tasks import Tasks
from lbproxy.telemetry.slots import PROCESS, UPGRADE_RESULTS, Row

log = logging.getLogger("lbproxy")

CHECKED_S = 5.0
COLUMNS: Final = tuple(PROCESS.column("upgrades_total", word) for word in UPGRADE_RESULTS)
"""Of upgrades by result, the successful ones first."""


def unreadable(error: Unreadable) -> str:
    """Why a process can't take over from one whose states are Unreadable."""
    return f"what the process before knows of its servers can't be understood: {error}; restart instead"


class TakingOver:
    """See the module. lock: see Upgrading. row: the PROCESS counters. stop: set when this process is to end.

    config_path: "-" for standard input. leave: another process serves, and this one is to finish what it has.
    """

    def __init__(
        self,
        outside: Outside,
        listeners: Listeners,
        controller: Controller,
        tasks: Tasks,
        lock: Lock,
        row: Row,
        stop: Event,
        config_path: str,
        leave: Callable[[], None],
    ) -> None:
        self._outside = outside
        self._listeners = listeners
        self._controller = controller
        self._tasks = tasks
        self._row = row
        self._stop = stop
        self._config_path = config_path
        self._leave = leave
        self._handing_over = HandingOver(
            command=lambda: command(sys.orig_argv, sys.argv[0], os.environ),
            environ=lambda: {**os.environ, **outside.variables},
            pass_fds=lambda: outside.pass_fds,
            own_group=outside.keeper is not None,
            offer=self._offer,
            tasks=tasks,
            failed=self._take_back,
        )
        self._upgrading = Upgrading(
            hand_over=self._handing_over,
            refusal=self._why_not,
            lock=lock,
            tasks=tasks,
            row=row,
            tell=lambda text, by: controller.events.add("process", text, by=by),
            handed_over=self._handed_over,
        )

    # --- the new process --------------------------------------------------------------------------------------------

    async def wait_to_serve(self, arrival: Arrival) -> None:
        """Make sure that this process can serve, and wait until it is to. Raises NotWanted."""
        for column, count in zip(COLUMNS, arrival.counts, strict=False):
            self._row[column] = count
        self._row[COLUMNS[0]] += 1  # the one that this process is made by
        await self._controller.checked(CHECKED_S)
        why = self._controller.lacking()
        if why is not None and arrival.was_ready:
            raise NotWanted(f"the process before was ready, and this one is not: {why}")
        try:
            self._controller.keeping.update(await arrival.ready(self._tasks, self._stop))
        except Unreadable as error:
            raise NotWanted(unreadable(error)) from None

    # --- the old one ------------------------------------------------------------------------------------------------

    @property
    def successor(self) -> Successor | None:
        """Who has taken over."""
        return self._upgrading.successor

    async def call(self, caller: Caller) -> tuple[int, Json]:
        """The answer of the admin API."""
        return await self._upgrading.upgrade(str(caller))

    def signal(self) -> None:
        """SIGUSR2 came."""
        self._tasks.spawn(self._upgrading.upgrade("SIGUSR2"), "upgrade asked")

    async def abort(self, grace: float) -> None:
        """This process stops, and so there is no upgrade; but `successor`, if it was too late for that. grace: seconds
        in which all is to be over.

        Who would have taken over has ended then: whoever comes to its copies of the sockets would be lost with it."""
        self._handing_over.hurry(Patience.of_a_stop(grace))
        await self._upgrading.abort("lbproxy was told to stop")
        await self._handing_over.gone()

    def watch_place(self, now: float) -> None:
        """What this process still finishes is no reason to stay when nobody serves: somebody must start another.

        To be called now and then."""
        if self._outside.is_deserted and not self._stop.is_set():
            log.warning("the process that took over is gone: this one stops")
            self._stop.set()

    def _offer(self) -> Offer:
        keeping = self._controller.keeping
        sockets = {**self._listeners.offered(), **self._controller.admin.offered}
        return Offer(sockets, keeping.snapshot, keeping.last_snapshot, self._controller.ready_reason() is None)

    def _take_back(self) -> None:
        self._outside.take_back()
        self._controller.keeping.serve()

    def _why_not(self) -> str | None:
        if self._stop.is_set():
            return "lbproxy is stopping"
        if self._config_path == "-":
            return "the config came from standard input, which another process could not read again"
        return None

    def _handed_over(self, successor: Successor) -> None:
        self._outside.handed_over(successor.pid)
        self._tasks.spawn(self._follow(successor), "the process that took over")
        if self._stop.is_set():  # whoever said so could not know yet that there is another one
            with contextlib.suppress(ProcessLookupError):
                os.kill(successor.pid, signal.SIGTERM)
        self._leave()

    async def _follow(self, successor: Successor) -> None:
        """This process ends with the one that took over, if that is told to stop while something goes on here."""
        with contextlib.suppress(Gone, Broken):
            while (await successor.line.hear())["say"] != "stop":
                pass
            log.info("the process %d stops, and so does this one", successor.pid)
            self._stop.set()
