"""What the protocol objects of one data process share: clock, counters, log, sweeper, and whether it is stopping.

Nothing here is global: the composition root (process/worker.py) makes one Services and hands it to the listeners.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from lbproxy.compiling import i64, id_line, text_of
from lbproxy.dataplane.net.dialer import Dialer
from lbproxy.dataplane.net.last_bytes import reset_on_close
from lbproxy.dataplane.net.poller import Poller
from lbproxy.dataplane.net.read_turns import ReadTurns
from lbproxy.dataplane.net.splice import PipePool
from lbproxy.dataplane.pressure import Pressure
from lbproxy.tasks import Tasks
from lbproxy.telemetry.log_writer import LogWriter
from lbproxy.telemetry.slots import PROCESS, Row

log = logging.getLogger("lbproxy")

SWEEP_S: Final = 0.2
_MONOTONIC: Final = monotonic
_RANDOM_BYTES: Final = 2048
_ID_AT: Final = len(b"X-Request-ID: ")
_INTERNAL_ERRORS: Final = PROCESS.column("internal_errors_total")


class Swept(Protocol):
    """Something with deadlines. The sweeper calls it a few times a second instead of one timer each."""

    def sweep(self, now: float) -> None: ...

    def buffered_bytes(self) -> int: ...

    def begin_drain(self, now: float) -> None: ...

    def shut_down(self) -> None: ...


class Services:
    """See the module. `clock` is monotonic seconds; `row` holds the PROCESS counters."""

    __slots__ = (
        "_random",
        "_random_at",
        "_sweep_handle",
        "access_writer",
        "clock",
        "dialer",
        "is_draining",
        "loop",
        "n_cut",
        "on_sweep",
        "pipes",
        "poller",
        "pressure",
        "read_turns",
        "row",
        "swept",
        "tasks",
        "wall_offset",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        row: Row,
        *,
        access_writer: LogWriter | None,
        buffered_limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = loop
        self.row = row
        self.access_writer = access_writer
        self.clock = clock
        self.pressure = Pressure(buffered_limit, row, clock)
        self.swept: set[Swept] = set()
        self.on_sweep: list[Callable[[float], None]] = []
        self.tasks = Tasks(self.task_crashed)
        self.poller = Poller(loop, self.internal_error, clock)
        self.read_turns = ReadTurns(loop, self.poller, clock)
        self.dialer = Dialer(loop, self.poller)
        self.pipes = PipePool()  # the worker gives it a limit; without one everything is copied
        self.is_draining = False
        self.n_cut = 0
        self.wall_offset = time.time() - clock()  # the log's time; follows the wall clock at each sweep
        self._random = b""
        self._random_at: i64 = 0  # where the octets begin that no request has
        self._sweep_handle: asyncio.TimerHandle | None = None

    # --- time -------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """`clock`, for what every request asks: the usual clock is not called through Python."""
        return monotonic() if self.clock is _MONOTONIC else self.clock()

    # --- identity ---------------------------------------------------------------------------------------------------

    def next_request_id(self) -> tuple[str, bytes]:
        """32 random hex digits, and the field line that carries them.

        One read of the kernel's generator serves 128 requests.
        """
        if self._random_at >= len(self._random):
            self._random = os.urandom(_RANDOM_BYTES)
            self._random_at = 0
        line = id_line(self._random, self._random_at)
        self._random_at += 16
        return text_of(line, _ID_AT, _ID_AT + 32), line

    # --- failures ---------------------------------------------------------------------------------------------------

    def task_crashed(self, error: BaseException) -> None:
        self.row[_INTERNAL_ERRORS] += 1

    def internal_error(self, where: str, error: BaseException) -> None:
        """A defect: counted, logged with its traceback, and confined to the connection that met it."""
        self.row[_INTERNAL_ERRORS] += 1
        log.error("internal error in %s: %r", where, error, exc_info=error)

    # --- the sweep --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._sweep_handle = self.loop.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._sweep_handle = self.loop.call_later(SWEEP_S, self._sweep)
        self.poller.turn_end.flush()  # what waits to be sent is not what a peer does not take
        now = self.clock()
        self.wall_offset = time.time() - now
        buffered = 0
        for item in list(self.swept):
            try:
                item.sweep(now)
                buffered += item.buffered_bytes()
            except Exception as error:  # one connection's defect must not stop the sweep of all others
                self.internal_error("sweep", error)
        self.pressure.settle(buffered)
        for callback in self.on_sweep:
            try:
                callback(now)
            except Exception as error:  # as above: the other callbacks must run
                self.internal_error("sweep", error)
        if self.access_writer is not None:
            self.access_writer.flush_soon()

    async def stop(self) -> None:
        """End what runs in the background. Connections must be gone before."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        await self.tasks.cancel_all()
        self.read_turns.close()
        self.poller.close()
        self.pipes.close()


def abort(transport: asyncio.Transport) -> None:
    """End a connection with RST, so that the peer can tell it from a clean end.

    `transport.abort()` alone sends FIN, which makes a truncated close-delimited body look whole.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        reset_on_close(sock)
    transport.abort()
