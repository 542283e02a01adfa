"""The life of a process that the supervisor has forked, from its first moment to its exit status."""

from __future__ import annotations

import logging
import os
from asyncio import Runner
from collections.abc import Callable, Iterable

from lbproxy.process.threads import new_loop
from lbproxy.process.worker import StartError
from lbproxy.process.workers.board import CONTROLLER
from lbproxy.process.workers.child import Child, begin
from lbproxy.process.workers.control_process import ControlProcess
from lbproxy.process.workers.data_process import DataProcess
from lbproxy.process.workers.lines import Line
from lbproxy.process.workers.station import Setup
from lbproxy.process.workers.stock import Stock
from lbproxy.telemetry import log as operator_log

log = logging.getLogger("lbproxy")


def become(
    child: Child,
    setup: Setup,
    stock: Stock,
    *,
    supervisor: int,
    others: Iterable[Line | None],
    leave_to_parent: Callable[[], None],
) -> None:
    """To be called in the new process: never returns.

    supervisor: its id. others: ends of lines that are the supervisor's.
    leave_to_parent: forgets what else is the supervisor's alone.
    """
    status = 1
    try:
        leave_to_parent()
        if not begin(child.number, supervisor):
            return
        for other in others:
            if other is not None:
                other.close()
        handler = operator_log.configure(setup.config.log.level, setup.config.log.format, process=child.name)
        try:
            status = _run(setup, stock)
        except StartError as error:
            setup.line.say("failed", f"{error.status} {error}".encode()[: 32 << 10])
            status = error.status
        except Exception:
            log.exception("%s ends", child.name)
        handler.close()
    finally:
        os._exit(status)


def _run(setup: Setup, stock: Stock) -> int:
    with Runner(loop_factory=new_loop) as runner:
        if setup.number == CONTROLLER:
            setup.sockets = stock.leave_to_controller()
            return runner.run(ControlProcess(setup, stock.doors).run())
        setup.sockets = stock.leave_to_worker(setup.number - 1)
        return runner.run(DataProcess(setup).run())
