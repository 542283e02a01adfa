"""Room for one more client when as many are connected as may be.

Most of them are usually kept connections with nothing to do. The one that has been idle longest makes way: a server may
close an idle connection at any time (RFC 9112 section 9.3), and its client sends the next request on a new one. Not in
the first second, in which that request may be on its way, and not when it has come. Where nobody is idle, a client that
waits for an answer is told with it that this was the last one (`Connection: close`).

To find them all connections are looked at, so that requests need not keep a list in order. One look finds many, and
there is not more than one in each sweep unless that many were needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest
from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.net.socket_transport import Receiver

IDLE_S: Final = 1.0
FOUND_AT_ONCE: Final = 256
LOOK_S: Final = 0.2

NOBODY: Final = ""
IDLE: Final = "idle"
ANSWERED: Final = "answered"


@mypyc_attr(allow_interpreted_subclasses=True)
class Guest(Receiver):
    """The connection of a client, as seen by who looks for room."""

    __slots__ = ()

    def idle_since(self) -> float:
        """Since when nothing is under way for this client; inf while something is."""
        raise NotImplementedError

    def makes_way(self) -> bool:
        """End an idle connection, for another one; False if a request has just come on it."""
        raise NotImplementedError

    def closes_after_answer(self) -> bool:
        """Let the answer that is due be the last one; False if there is none that could say so."""
        raise NotImplementedError


class Room:
    """`swept`: everything with deadlines (Services.swept), the client connections among it."""

    __slots__ = ("_busy", "_idle", "_looked_at", "_may_be_more", "_swept")

    def __init__(self, swept: Iterable[object]) -> None:
        self._swept = swept
        self._idle: list[Guest] = []  # the longest idle last
        self._busy: list[Guest] = []
        self._looked_at = float("-inf")
        self._may_be_more = False

    def make(self, now: float) -> str:
        """Have one client leave: IDLE, ANSWERED (it leaves when it has its answer), or NOBODY can."""
        if self._close_idle(now):
            return IDLE
        if self._may_be_more or now - self._looked_at >= LOOK_S:
            self._look(now)
            if self._close_idle(now):
                return IDLE
        while self._busy:
            if self._busy.pop().closes_after_answer():
                return ANSWERED
        return NOBODY

    def forget(self) -> None:
        """There is room again."""
        self._idle.clear()
        self._busy.clear()
        self._may_be_more = False

    def _close_idle(self, now: float) -> bool:
        while self._idle:
            client = self._idle.pop()
            if now - client.idle_since() >= IDLE_S and client.makes_way():
                return True
        return False

    def _look(self, now: float) -> None:
        self._looked_at = now
        idle: list[Guest] = []
        busy: list[Guest] = []
        for item in self._swept:
            if not isinstance(item, Guest):
                continue
            if now - item.idle_since() >= IDLE_S:
                idle.append(item)
            elif len(busy) < FOUND_AT_ONCE:
                busy.append(item)
        self._idle = nsmallest(FOUND_AT_ONCE, idle, key=lambda client: client.idle_since())
        self._idle.reverse()
        self._busy = busy
        self._may_be_more = len(idle) > FOUND_AT_ONCE
