"""Waiting for room in the accept queue of a unix server.

Where TCP sends its SYN again, connect(2) on a unix socket says EAGAIN, and nobody says when there is room: one has to
ask again. If each of 500 waiting requests did that every 10 ms it would be half of a processor, and whoever asked at
the right moment would be first. So one asks for all, less often the longer it takes, and they are served in the order
in which they came.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.002
MOST_S: Final = 0.05
"""Longest time between two attempts: a server with room for one must not be idle for longer."""
BATCH: Final = 64  # connections in one turn of the loop

Waiter = asyncio.Future[socket.socket]


class Backlog:
    """Those who wait for one server. on_empty is told when the last of them has gone."""

    __slots__ = ("_delay_s", "_is_trying", "_loop", "_make_socket", "_n_gone", "_on_empty", "_path", "_waiters")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        make_socket: Callable[[int, int], socket.socket],
        on_empty: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._path = path
        self._make_socket = make_socket
        self._on_empty = on_empty
        self._waiters: deque[Waiter] = deque()
        self._n_gone = 0  # of the waiters, those that do not wait any more
        self._delay_s = FIRST_S
        self._is_trying = False

    def __len__(self) -> int:
        return sum(not waiter.done() for waiter in self._waiters)

    async def connect(self) -> socket.socket:
        """A connected socket, when it is this one's turn. Raises OSError; the caller's time-out ends the wait."""
        waiter: Waiter = self._loop.create_future()
        self._waiters.append(waiter)
        if not self._is_trying:
            self._is_trying = True
            self._loop.call_later(self._delay_s, self._try)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().close()  # it came in the turn in which nobody wanted it any more
            else:
                waiter.cancel()
                self._gone()
            raise

    def _gone(self) -> None:
        """One of the waiters is cancelled. Those in the middle are taken out now and then."""
        self._n_gone += 1
        if self._n_gone * 2 > len(self._waiters):
            self._waiters = deque(waiter for waiter in self._waiters if not waiter.done())
            self._n_gone = 0

    def _try(self) -> None:
        """Connect for whoever is first, and for those behind while there is room."""
        for _ in range(BATCH):
            while self._waiters and self._waiters[0].done():
                self._waiters.popleft()
                self._n_gone = max(0, self._n_gone - 1)
            if not self._waiters:
                self._is_trying = False
                self._on_empty()
                return
            number, sock = self._attempt()
            if number == errno.EAGAIN:
                self._delay_s = min(self._delay_s * 2, MOST_S)
                break
            self._delay_s = FIRST_S
            waiter = self._waiters.popleft()
            if sock is not None:
                waiter.set_result(sock)
            else:
                waiter.set_exception(OSError(number, os.strerror(number)))
        self._loop.call_later(self._delay_s, self._try)

    def _attempt(self) -> tuple[int, socket.socket | None]:
        """An errno, or 0 and the connection."""
        try:
            sock = self._make_socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            return error.errno or errno.EMFILE, None
        number = sock.connect_ex(self._path)
        if number:
            sock.close()
            return number, None
        return 0, sock
