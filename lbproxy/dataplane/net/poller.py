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

Whoever asks for hundreds of answers at once has them ready at once, and the kernel tells of sockets in the order in
which they became ready. So a descriptor may stand behind the others (`stand_behind`): what can be read there waits
until all is done that came for those, and then they have BEHIND_S together in a turn, in the order in which they came.
What is left is first the next time. The kernel tells of it once more, so nothing is lost if it is forgotten.

The loop's own turn (its epoll, its timers, a call through Python) costs as much as the reading of a small message. So
where a batch was of LOOK_FROM descriptors or more, there is another look before the loop has its turn, until LOOK_S
have passed: under load new ones have become ready meanwhile, and one by itself is not looked behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from time import monotonic
from typing import Final

from lbproxy.compiling import change_now, events_now, i64, mypyc_attr, packed_events, watch_now, word_at
from lbproxy.dataplane.net.turn_end import TurnEnd, Writer

READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP
WRITABLE: Final = select.EPOLLOUT
EDGE: Final = select.EPOLLET  # by itself: errors and hang-ups
_EPOLL: Final = select.epoll
_EVENT: Final = 8  # octets, of which the first half says which descriptor it is
_HALF: Final = 32  # bits
_MONOTONIC: Final = monotonic
_IN: Final = select.EPOLLIN  # by itself: whoever is told of its end alone may be told once
_LOWER_HALF: Final = 0xFFFFFFFF
BATCH: Final = 256  # events a turn; the rest comes with the next one, the loop's other work in between
BEHIND_S: Final = 0.00015
"""In a turn, for all together that stand behind the others. What they leave to be sent comes on top, half as much."""
LOOK_FROM: Final = 2
LOOK_S: Final = 0.0003
_MOST_BATCHES: Final = 8
"""In a turn, while most of a batch are of those who stand behind: a socket that became ready last is not theirs."""


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
    """See the module. `defect` is told of exceptions that should not be (Services.internal_error). clock: monotonic
    seconds. n_turns: so far. behind_s: BEHIND_S, unless time does not count."""

    __slots__ = (
        "_behind",
        "_clock",
        "_epoll",
        "_fd",
        "_is_plain",
        "_later",
        "_loop",
        "_modify",
        "_pollables",
        "_put_off",
        "_register",
        "behind_s",
        "defect",
        "n_turns",
        "turn_end",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        defect: Callable[[str, BaseException], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._loop = loop
        self.defect = defect
        self._clock = clock
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        self._is_plain = isinstance(self._epoll, _EPOLL)  # what is none is a stand-in
        self._register = self._epoll.register
        self._modify = self._epoll.modify
        self._pollables: list[Pollable | None] = []  # by descriptor, of which the kernel gives the lowest that is free
        self._later: list[Pollable] = []
        self._behind: set[int] = set()  # descriptors
        self._put_off: dict[int, int] = {}  # of these, in the order in which they were ready; and the events
        self.behind_s = BEHIND_S
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

    def stand_behind(self, fd: int) -> None:
        """What can be read there is looked at behind what comes for others, until `stand_among`."""
        self._behind.add(fd)

    def stand_among(self, fd: int) -> None:
        """As usual again. Before it is closed: the number may be another's then."""
        self._behind.discard(fd)

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
        turn_end = self.turn_end
        turn_end.is_turning = True
        self.n_turns += 1
        try:
            n_batches: i64 = 0
            until = 0.0
            while True:
                n_found, n_behind = self._batch()
                n_batches += 1
                if n_behind > BATCH // 2 and n_found == BATCH:
                    if n_batches == _MOST_BATCHES:
                        break
                    continue
                if n_found - n_behind < LOOK_FROM or n_found == BATCH:
                    break
                now = self._seconds()
                if n_batches == 1:
                    until = now + LOOK_S
                elif now >= until:
                    break
                turn_end.flush()
                self.end_what_is_over()
            if self._put_off:
                turn_end.flush()  # what came for the others leaves first
                self._look_behind()
            turn_end.flush()
        finally:
            turn_end.is_turning = False
            self.end_what_is_over()

    def _batch(self) -> tuple[i64, i64]:
        """Deal with what is ready now: how many there were, and of these how many were put off."""
        epoll, pollables = self._epoll, self._pollables
        found = events_now(epoll, self._fd, BATCH) if self._is_plain else packed_events(epoll.poll(0, BATCH))
        are_some_behind = len(self._behind) > 0
        n_behind: i64 = 0
        at: i64 = 0
        end: i64 = len(found)
        while at < end:
            event = word_at(found, at)
            at += _EVENT
            fd = event & _LOWER_HALF
            if are_some_behind and event >> _HALF & _IN and fd in self._behind:
                self._put_off[fd] = event >> _HALF & _LOWER_HALF
                n_behind += 1
                continue
            pollable = pollables[fd] if fd < len(pollables) else None
            if pollable is not None:
                try:
                    pollable.ready(event >> _HALF & _LOWER_HALF)
                except Exception as error:  # a defect: confined to this connection
                    self._crashed(pollable, error)
        return end // _EVENT, n_behind

    def _look_behind(self) -> None:
        """Deal with some of those who stand behind: a little in each turn, whatever comes for others."""
        put_off, pollables = self._put_off, self._pollables
        until = self._seconds() + self.behind_s
        while put_off:
            fd = next(iter(put_off))
            events = put_off.pop(fd)
            pollable = pollables[fd] if fd < len(pollables) else None
            if pollable is not None:
                try:
                    pollable.ready(events)
                except Exception as error:  # as above
                    self._crashed(pollable, error)
                self.end_what_is_over()  # closing a connection is half of what it costs
                if self._seconds() >= until:
                    break

    def _seconds(self) -> float:
        """The usual clock is not called through Python."""
        return monotonic() if self._clock is _MONOTONIC else self._clock()

    def run_turn(self, work: Callable[[], None]) -> None:
        """Do some work apart from events: what it leaves for the end of the turn is done directly behind it."""
        turn_end = self.turn_end
        turn_end.is_turning = True
        try:
            work()
            turn_end.flush()
        finally:
            turn_end.is_turning = False
            self.end_what_is_over()

    def end_what_is_over(self) -> None:
        """Call back those who asked for it (`after_batch`)."""
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
        self._put_off.clear()
        self._later.clear()
        self._epoll.close()
