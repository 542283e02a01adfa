"""Readiness of many sockets for the price of one watcher of the loop.

uvloop makes a libuv handle for each descriptor that it watches, and a coroutine and a task for each connection that it
opens; together they cost more than the system calls behind them. In TCP mode a connection that is opened, used once and
closed took 101 us of CPU with uvloop's transports and takes 74 with those on this epoll (both compiled), where HAProxy
takes 70. The loop watches only the epoll; registering a socket is one epoll_ctl and one entry of a dictionary.

Events are hints. Within one batch a descriptor may be closed and its number given to a new socket, which then gets the
old one's events. So a Pollable asks the kernel (recv, send, accept, connect) and never believes the bits alone; all of
these answer EAGAIN where there is nothing.

Level-triggered, so whoever does not take what is reported must `forget` the descriptor: EPOLLHUP and EPOLLERR are
reported whatever was asked for. Or it is watched with EDGE, which reports each change once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from typing import Final

from lbproxy.compiling import change_now, events_now, i64, mypyc_attr, packed_events, watch_now, word_at
from lbproxy.dataplane.net.turn_end import TurnEnd, Writer

READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP
WRITABLE: Final = select.EPOLLOUT
EDGE: Final = select.EPOLLET  # by itself: errors and hang-ups
_EPOLL: Final = select.epoll
_EVENT: Final = 8  # octets, of which the first half says which descriptor it is
_HALF: Final = 32  # bits
_LOWER_HALF: Final = 0xFFFFFFFF
BATCH: Final = 256  # events a turn; the rest comes with the next one, the loop's other work in between


@mypyc_attr(allow_interpreted_subclasses=True)
class Pollable(Writer):
    """Somebody with a descriptor. A Writer because a compiled class has one base; only transports do write."""

    __slots__ = ()

    def ready(self, events: int) -> None:
        """Something may be possible now; `events` as in epoll(7)."""
        raise NotImplementedError

    def crashed(self, error: Exception) -> None:
        """`ready` raised this, a defect: end the connection. Not reported yet."""
        raise NotImplementedError

    def batch_ended(self) -> None:
        """The batch in which it asked for its end (`after_batch`) is over."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Poller:
    """See the module. `defect` is told of exceptions that should not be (Services.internal_error). n_turns: batches so
    far."""

    __slots__ = (
        "_epoll",
        "_fd",
        "_is_plain",
        "_later",
        "_loop",
        "_modify",
        "_pollables",
        "_register",
        "defect",
        "n_turns",
        "turn_end",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, defect: Callable[[str, BaseException], None]) -> None:
        self._loop = loop
        self.defect = defect
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        self._is_plain = isinstance(self._epoll, _EPOLL)  # what is none is a stand-in
        self._register = self._epoll.register
        self._modify = self._epoll.modify
        self._pollables: list[Pollable | None] = []  # by descriptor, of which the kernel gives the lowest that is free
        self._later: list[Pollable] = []
        self.n_turns: i64 = 0
        self.turn_end = TurnEnd(loop, defect)
        # A reset leaves before what is sent next: a server with one slot must see the old request go first.
        self.turn_end.before = self._run_later
        loop.add_reader(self._epoll.fileno(), self.turn)

    def watch(self, fd: int, events: int, pollable: Pollable) -> None:
        """From now on `pollable.ready` is called. Raises OSError when the kernel has no room for it."""
        if self._is_plain:
            number = watch_now(self._epoll, self._fd, fd, events)
            if number:
                raise OSError(number, os.strerror(number))
        else:
            self._register(fd, events)
        pollables = self._pollables
        while len(pollables) <= fd:
            pollables.append(None)
        pollables[fd] = pollable

    def change(self, fd: int, events: int) -> None:
        """Wait for other events on a descriptor that is watched."""
        if self._is_plain:
            number = change_now(self._epoll, self._fd, fd, events)
            if number:
                raise OSError(number, os.strerror(number))
        else:
            self._modify(fd, events)

    def forget(self, fd: int) -> None:
        """No longer watch it."""
        if self._let_go(fd):
            if self._is_plain:
                change_now(self._epoll, self._fd, fd, 0)  # not there: nothing to forget
                return
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def has_unread(self, fd: int) -> bool:
        """Is there anything to be read, an end included?"""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def ends(self, fd: int) -> int:
        """What there is now of POLLRDHUP, POLLHUP and POLLERR: an event may be another socket's (see the module)."""
        poll = select.poll()
        poll.register(fd, select.POLLRDHUP)
        for _, events in poll.poll(0):
            return events
        return 0

    def drop(self, fd: int, *, is_shared: bool) -> None:
        """The same for one that is closed next. is_shared: a duplicate may keep it, and with it its place here."""
        if is_shared:
            self.forget(fd)
        else:
            self._let_go(fd)

    def _let_go(self, fd: int) -> bool:
        """Is it somebody's no longer? False: it was nobody's."""
        pollables = self._pollables
        if fd >= len(pollables) or pollables[fd] is None:
            return False
        pollables[fd] = None
        return True

    def after_batch(self, pollable: Pollable) -> None:
        """Its `batch_ended` is called before the loop goes on, if the current callback is one of ours; else soon."""
        if not self._later and not self.turn_end.is_turning:
            self._loop.call_soon(self._run_later)
        self._later.append(pollable)

    @property
    def has_ends(self) -> bool:
        """Does a connection that is over still wait for the end of the batch to be closed?"""
        return bool(self._later)

    def turn(self) -> None:
        """Something is ready: deal with it, and with what that leaves to be sent and ended."""
        pollables = self._pollables
        turn_end = self.turn_end
        turn_end.is_turning = True
        self.n_turns += 1
        try:
            epoll = self._epoll
            found = events_now(epoll, self._fd, BATCH) if self._is_plain else packed_events(epoll.poll(0, BATCH))
            at: i64 = 0
            end: i64 = len(found)
            while at < end:
                event = word_at(found, at)
                at += _EVENT
                fd = event & _LOWER_HALF
                pollable = pollables[fd] if fd < len(pollables) else None
                if pollable is not None:
                    try:
                        pollable.ready(event >> _HALF & _LOWER_HALF)
                    except Exception as error:  # a defect: confined to this connection
                        self._crashed(pollable, error)
            turn_end.flush()
        finally:
            turn_end.is_turning = False
            if self._later:
                self._run_later()

    def run_turn(self, work: Callable[[], None]) -> None:
        """Do some work apart from events: what it leaves for the end of the turn is done directly behind it."""
        turn_end = self.turn_end
        turn_end.is_turning = True
        try:
            work()
            turn_end.flush()
        finally:
            turn_end.is_turning = False
            if self._later:
                self._run_later()

    def _crashed(self, pollable: Pollable, error: Exception) -> None:
        self.defect("a connection", error)
        try:
            pollable.crashed(error)
        except Exception as second:  # the others must have their turn
            self.defect("a connection", second)

    def _run_later(self) -> None:
        while self._later:
            batch, self._later = self._later, []
            for pollable in batch:
                try:
                    pollable.batch_ended()
                except Exception as error:  # as above
                    self.defect("the end of a connection", error)

    def close(self) -> None:
        """End watching. Sockets stay open."""
        self._loop.remove_reader(self._epoll.fileno())
        self._pollables.clear()
        self._later.clear()
        self._epoll.close()
