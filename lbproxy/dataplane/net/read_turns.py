"""Whose turn it is to be read on: what one read brought may be much work, and all others wait while it is done.

A read of 16 KiB can hold 500 requests of HTTP/2, which are 20 to 50 ms of work, and ten connections may send such reads
at once. So whoever reads frames asks here, after each few of them, whether it may go on in this turn of the loop. If
not, it keeps the rest, reads no more of its socket, and waits in one queue with all others. A piece of that queue's
work is done between two looks at the sockets: without a timer, and whoever waits gets a little in each round.

    in a turn of the poller                     together TURN_S, by the clock: the price of a frame depends on what it
                                                asks for; nothing where some wait already
    whoever comes when that is used up          the first few frames (FEW) at once all the same: a request that comes
                                                alone must not stand in line behind those that come by hundreds
    the queue, once in each turn of the loop    PIECE_S; each FEW in its turn, or more where nobody else waits

Servers have a time of their own in a turn, TURN_S as well: what they say was mostly asked for, and one connection has
the answers for many clients. Each may say ANSWERS at once; what is more than there is time for waits in the same queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from lbproxy.compiling import i64, mypyc_attr
from lbproxy.dataplane.net.poller import Poller

TURN_S: Final = 0.0003
PIECE_S: Final = 0.00015
FEW: Final = 16
"""Units of work, as the codec counts them (protocol/h2/connection.py): one request."""
SOME: Final = 64
"""Between two looks at the clock."""
ANSWERS: Final = 512
"""Of a server at once: about twenty short answers."""
_MONOTONIC: Final = monotonic


@mypyc_attr(allow_interpreted_subclasses=True)
class ReadTurns:
    """See the module. clock: monotonic seconds. turn_s, piece_s: TURN_S and PIECE_S, unless time does not count."""

    __slots__ = (
        "_answers_turn",
        "_answers_until",
        "_clock",
        "_is_due",
        "_loop",
        "_poller",
        "_queue",
        "_turn",
        "_until",
        "piece_s",
        "turn_s",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, poller: Poller, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._poller = poller
        self._clock = clock
        self._queue: deque[Callable[[], bool]] = deque()
        self._turn: i64 = -1  # of the poller, to which `_until` belongs
        self._until = 0.0
        self._answers_turn: i64 = -1  # the same for servers
        self._answers_until = 0.0
        self._is_due = False  # `_run` will be called
        self.turn_s = TURN_S
        self.piece_s = PIECE_S

    def units(self, now: float) -> int:
        """How much may be done at once of a read that has just come. now: seconds of `clock`."""
        if self._queue:
            return FEW
        if self._turn != self._poller.n_turns:
            self._turn = self._poller.n_turns
            self._until = now + self.turn_s
            return SOME
        return SOME if now < self._until else FEW

    def more_units(self) -> int:
        """How much more, when that is done. 0: it is the others' turn."""
        return SOME if not self._queue and self._seconds() < self._until else 0

    def answers(self, now: float) -> int:
        """How much may be done at once of a read that has just come from a server. now: seconds of `clock`."""
        if self._answers_turn != self._poller.n_turns:
            self._answers_turn = self._poller.n_turns
            self._answers_until = now + self.turn_s
        return ANSWERS

    def more_answers(self) -> int:
        """How much more, when that is done. 0: it is the others' turn."""
        return ANSWERS if self._seconds() < self._answers_until else 0

    def wait(self, take_turn: Callable[[], bool]) -> None:
        """It is called when it is its turn, but not before the sockets were looked at. It says whether it wants another
        one: there is more to read, or to end."""
        self._queue.append(take_turn)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._run)

    def _seconds(self) -> float:
        """The usual clock is not called through Python."""
        return monotonic() if self._clock is _MONOTONIC else self._clock()

    @property
    def n_waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def _run(self) -> None:
        self._poller.run_turn(self._piece)
        self._is_due = bool(self._queue)
        if self._is_due:
            self._loop.call_soon(self._run)

    def _piece(self) -> None:
        queue = self._queue
        self._until = self._seconds() + self.piece_s
        while queue:
            take_turn = queue.popleft()
            has_more = False
            try:
                has_more = take_turn()
            except Exception as error:  # a defect: the others must have their turn
                self._poller.defect("a connection", error)
            if has_more:
                queue.append(take_turn)
            self._poller.end_what_is_over()
            if self._seconds() >= self._until:
                break

    def close(self) -> None:
        """All is done that waits: who still does has nothing left but to end."""
        while self._queue:
            self._piece()
