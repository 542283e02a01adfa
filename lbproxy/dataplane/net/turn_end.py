"""What small messages cost the kernel: writing them at the end of a turn of the loop, one directly after the other.

A turn deals with everything that was ready when it began, some ten messages under load. A write wakes the process that
waits for it, and if that is idle, waking it is the dearest part: up to 6 of 16 us of system time per request where
client, proxy and server are on one machine (perf: try_to_wake_up under sock_def_readable). Written one by one, between
the work on two messages, each finds its reader asleep again; written together, one wakes it for all. A turn without
other messages ends at once, so nothing waits that could have gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lbproxy.compiling import drop_last, i64, mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Writer:
    """A transport with something to write. A base class, so that compiled code calls it directly."""

    __slots__ = ()

    def flush(self) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class TurnEnd:
    """Whom to tell at the end of this turn, in the order in which they asked."""

    __slots__ = ("_defect", "_due", "_is_telling", "_loop", "before", "is_turning")

    def __init__(self, loop: asyncio.AbstractEventLoop, defect: Callable[[str, BaseException], None]) -> None:
        """defect: who is told of exceptions that should not be (Services.internal_error)."""
        self._loop = loop
        self._defect = defect
        self._due: list[Writer] = []
        self._is_telling = False
        self.before: Callable[[], None] | None = None  # called first by each flush
        self.is_turning = False  # the poller is in the middle of a batch, and calls `flush` behind it

    def add(self, writer: Writer) -> None:
        """`writer.flush` is called once, after all that is ready now and before the loop waits again."""
        due = self._due
        if not due and not self.is_turning:
            self._loop.call_soon(self.flush)
        due.append(writer)

    def flush(self) -> None:
        """The turn is over. Who asks meanwhile is served too: TLS gives its records to the transport below."""
        if self.before is not None:
            self.before()
        due = self._due
        if self._is_telling or not due:
            return
        self._is_telling = True
        at: i64 = 0
        while at < len(due):
            try:
                due[at].flush()
            except Exception as error:  # a defect: the others must not wait for ever
                self._defect("flush", error)
            at += 1
        while due:  # one by one: the list keeps its memory for the next turn
            drop_last(due)
        self._is_telling = False
