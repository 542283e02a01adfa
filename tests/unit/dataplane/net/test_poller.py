"""Who is told of an event, and what a defect in one connection does to the others. The epoll is a list of events."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from lbproxy.dataplane.net import poller as module
from lbproxy.dataplane.net.poller import BATCH, BEHIND_S, LOOK_S, READABLE, WRITABLE, Pollable, Poller
from lbproxy.dataplane.net.turn_end import Writer
from tests.support.fake_transport import FakeClock, FakeLoop


class FakeEpoll:
    """Gives out the events that the test has put in."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.calls: list[tuple[object, ...]] = []
        self.is_closed = False

    def fileno(self) -> int:
        return 999

    def register(self, fd: int, events: int) -> None:
        self.calls.append(("register", fd, events))

    def modify(self, fd: int, events: int) -> None:
        self.calls.append(("modify", fd, events))

    def unregister(self, fd: int) -> None:
        self.calls.append(("unregister", fd))
        raise FileNotFoundError

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        assert (timeout, most) == (0, BATCH)
        events, self.events = self.events[:most], self.events[most:]
        return events

    def close(self) -> None:
        self.is_closed = True


class Setting:
    def __init__(self, epoll: FakeEpoll) -> None:
        self.epoll = epoll
        self.clock = FakeClock()
        self.loop = FakeLoop(self.clock)
        self.defects: list[BaseException] = []
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.poller = Poller(loop, lambda where, error: self.defects.append(error), self.clock)

    def happens(self, *events: tuple[int, int]) -> None:
        self.epoll.events += events
        self.loop.turn()

    def watched(self, said: list[int], fd: int, *, is_behind: bool, took_s: float = 0.0) -> Connection:
        """It says its number when it is told of something, and what follows takes so long."""

        def act() -> None:
            said.append(fd)
            self.clock.now += took_s

        connection = Connection(act)
        self.poller.watch(fd, READABLE, connection)
        if is_behind:
            self.poller.stand_behind(fd)
        return connection


class Held(Writer):
    """Somebody who says this word when what it holds is sent."""

    def __init__(self, said: list[Any], word: str) -> None:
        self._said = said
        self._word = word

    def flush(self) -> None:
        self._said.append(self._word)


class Ending(Pollable):
    """Somebody who does this when the batch is over."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def batch_ended(self) -> None:
        self._act()


class Connection(Pollable):
    def __init__(self, act: Callable[[], object] = lambda: None, crash: Callable[[], object] = lambda: None) -> None:
        self.seen: list[int] = []
        self.errors: list[Exception] = []
        self._act = act
        self._crash = crash

    def ready(self, events: int) -> None:
        self.seen.append(events)
        self._act()

    def crashed(self, error: Exception) -> None:
        self.errors.append(error)
        self._crash()


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    epoll = FakeEpoll()
    monkeypatch.setattr(cast(Any, module).select, "epoll", lambda: epoll)
    yield Setting(epoll)


def test_events_go_to_whoever_watches(setting: Setting) -> None:
    a, b = Connection(), Connection()
    setting.poller.watch(7, READABLE, a)
    setting.poller.watch(8, WRITABLE, b)
    setting.happens((8, WRITABLE), (7, READABLE), (7, WRITABLE))
    assert (a.seen, b.seen) == ([READABLE, WRITABLE], [WRITABLE])
    setting.poller.change(8, READABLE)
    assert setting.epoll.calls == [("register", 7, READABLE), ("register", 8, WRITABLE), ("modify", 8, READABLE)]


def test_an_event_of_one_that_was_forgotten_in_the_same_batch_goes_nowhere(setting: Setting) -> None:
    b = Connection()
    setting.poller.watch(7, READABLE, Connection(act=lambda: setting.poller.forget(8)))
    setting.poller.watch(8, READABLE, b)
    setting.happens((7, READABLE), (8, READABLE))
    assert b.seen == [] and not setting.defects


def test_an_event_of_a_descriptor_that_was_never_watched_goes_nowhere(setting: Setting) -> None:
    a = Connection()
    setting.poller.watch(7, READABLE, a)
    setting.poller.forget(9999)
    setting.happens((9999, READABLE), (3, READABLE), (7, READABLE))
    assert a.seen == [READABLE] and not setting.defects


def test_forgetting_twice_is_nothing(setting: Setting) -> None:
    setting.poller.watch(7, READABLE, Connection())
    setting.poller.forget(7)
    setting.poller.forget(7)
    assert setting.epoll.calls == [("register", 7, READABLE), ("unregister", 7)]


def test_who_closes_the_descriptor_next_need_not_tell_the_kernel_unless_it_has_a_duplicate(setting: Setting) -> None:
    for fd, is_shared in ((7, False), (8, True)):
        connection = Connection()
        setting.poller.watch(fd, READABLE, connection)
        setting.poller.drop(fd, is_shared=is_shared)
        setting.happens((fd, READABLE))
        assert connection.seen == []
    assert [call for call in setting.epoll.calls if call[0] == "unregister"] == [("unregister", 8)]


def test_a_defect_is_reported_and_ends_one_connection_only(setting: Setting) -> None:
    def fail() -> None:
        raise RuntimeError("defect")

    a, b, c = Connection(act=fail), Connection(act=fail, crash=fail), Connection()
    for fd, connection in enumerate((a, b, c), 7):
        setting.poller.watch(fd, READABLE, connection)
    setting.happens((7, READABLE), (8, READABLE), (9, READABLE))
    assert len(a.errors) == len(b.errors) == len(c.seen) == 1
    assert len(setting.defects) == 3  # one of them in `crashed`


def test_what_is_to_follow_comes_when_the_batch_is_over(setting: Setting) -> None:
    order: list[str] = []
    later = setting.poller.after_batch

    def first() -> None:
        order.append("first")
        later(Ending(lambda: order.append("later")))

    setting.poller.watch(7, READABLE, Connection(act=first))
    setting.poller.watch(8, READABLE, Connection(act=lambda: order.append("second")))
    setting.happens((7, READABLE), (8, READABLE))
    assert order == ["first", "second", "later"]


def test_outside_of_a_batch_it_comes_in_the_next_turn(setting: Setting) -> None:
    order: list[str] = []

    def fail() -> None:
        raise RuntimeError("defect")

    setting.poller.after_batch(Ending(fail))
    third = Ending(lambda: order.append("third"))
    setting.poller.after_batch(Ending(lambda: setting.poller.after_batch(third)))
    setting.poller.after_batch(Ending(lambda: order.append("second")))
    assert order == []
    setting.loop.run()
    assert order == ["second", "third"] and len(setting.defects) == 1


def test_the_end_of_a_peer_is_asked_of_the_kernel(setting: Setting) -> None:
    """A pipe's end hangs up as a socket's does."""
    read, write = os.pipe()
    try:
        assert setting.poller.ends(read) == 0
        os.write(write, b"unread")
        assert setting.poller.ends(read) == 0
        os.close(write)
        assert setting.poller.ends(read) == select.POLLHUP
    finally:
        os.close(read)


def test_closing(setting: Setting) -> None:
    setting.poller.watch(7, READABLE, Connection())
    setting.poller.close()
    assert setting.epoll.is_closed and setting.loop.remove_reader(999) is False


def test_what_is_over_is_closed_before_what_is_held_is_sent(setting: Setting) -> None:
    said: list[str] = []

    def act() -> None:
        setting.poller.turn_end.add(Held(said, "sent"))
        setting.poller.after_batch(Ending(lambda: said.append("closed")))
        assert setting.poller.has_ends

    setting.poller.watch(5, 1, Connection(act))
    setting.happens((5, 1))
    assert said == ["closed", "sent"]
    assert not setting.poller.has_ends


def test_the_kernel_s_own_events_come_to_whoever_watches() -> None:
    loop, defects = FakeLoop(FakeClock()), list[BaseException]()
    poller = Poller(cast(asyncio.AbstractEventLoop, loop), lambda where, error: defects.append(error))
    pipes = [os.pipe() for _ in range(3)]
    try:
        readers, writer = [Connection() for _ in pipes], Connection(act=lambda: poller.forget(pipes[2][1]))
        for (reading, _), connection in zip(pipes, readers, strict=True):
            poller.watch(reading, READABLE, connection)
        poller.watch(pipes[2][1], WRITABLE, writer)
        readers[1]._act = lambda: os.read(pipes[1][0], 1)  # what is left is told once more
        os.write(pipes[1][1], b"a")
        loop.turn()
        assert [connection.seen for connection in readers] == [[], [select.EPOLLIN], []]
        assert writer.seen == [select.EPOLLOUT]
        poller.forget(pipes[1][0])
        os.close(pipes[0][1])
        loop.turn()
        assert [connection.seen for connection in readers] == [[select.EPOLLHUP], [select.EPOLLIN], []]
        assert not defects
    finally:
        poller.close()
        for fd in {fd for pipe in pipes for fd in pipe} - {pipes[0][1]}:
            os.close(fd)


# --- those who stand behind the others ------------------------------------------------------------------------------


def told(*fds: int) -> list[tuple[int, int]]:
    return [(fd, select.EPOLLIN) for fd in fds]


def test_those_behind_come_last(setting: Setting) -> None:
    said: list[int] = []
    for fd in (5, 6, 7, 8):
        setting.watched(said, fd, is_behind=fd < 7)
    setting.happens(*told(5, 7, 6, 8))
    assert said == [7, 8, 5, 6]
    setting.poller.stand_among(5)
    said.clear()
    setting.happens(*told(5, 6, 7))
    assert said == [5, 7, 6]


def test_those_behind_have_some_time_together_and_the_rest_is_first_in_the_next_turn(setting: Setting) -> None:
    said: list[int] = []
    for fd in (5, 6, 7, 8):
        setting.watched(said, fd, is_behind=True, took_s=BEHIND_S * 0.51)
    setting.watched(said, 9, is_behind=False, took_s=1.0)
    setting.happens(*told(5, 6, 7, 8, 9))
    assert said == [9, 5, 6]
    setting.happens(*told(9, 5, 7, 8))  # the kernel tells again what was not read
    assert said[3:] == [9, 7, 8]
    setting.happens(*told(5))
    assert said[6:] == [5]


def test_those_behind_have_a_little_of_each_turn_whatever_the_others_do(setting: Setting) -> None:
    said: list[int] = []
    setting.watched(said, 5, is_behind=True)
    setting.watched(said, 6, is_behind=False, took_s=1.0)
    for _ in range(3):
        setting.happens(*told(6, 5))
    assert said == [6, 5] * 3


def test_an_end_that_is_told_once_is_not_put_off(setting: Setting) -> None:
    setting.poller.behind_s = 0.0
    first, second = [setting.watched([], fd, is_behind=True) for fd in (5, 6)]
    setting.happens((5, READABLE), (6, select.EPOLLRDHUP))
    assert (first.seen, second.seen) == ([READABLE], [select.EPOLLRDHUP])
    setting.happens((6, select.EPOLLRDHUP | select.EPOLLHUP), (5, WRITABLE))
    assert (first.seen[1:], second.seen[1:]) == ([WRITABLE], [select.EPOLLRDHUP | select.EPOLLHUP])


def test_one_that_has_gone_meanwhile_is_told_nothing(setting: Setting) -> None:
    gone = setting.watched([], 5, is_behind=True)
    setting.poller.watch(6, READABLE, Connection(act=lambda: setting.poller.forget(5)))
    setting.happens(*told(5, 6))
    assert gone.seen == [] and not setting.defects


def test_a_defect_of_one_behind_ends_that_one_only(setting: Setting) -> None:
    def fail() -> None:
        raise RuntimeError("defect")

    said: list[int] = []
    broken = Connection(act=fail)
    setting.poller.watch(5, READABLE, broken)
    setting.poller.stand_behind(5)
    setting.watched(said, 6, is_behind=True)
    setting.happens(*told(5, 6))
    assert len(broken.errors) == len(setting.defects) == 1 and said == [6]


def test_whoever_became_ready_behind_a_thousand_does_not_wait_for_them(setting: Setting) -> None:
    said: list[int] = []
    for fd in range(10, 10 + 4 * BATCH):
        setting.watched(said, fd, is_behind=True, took_s=BEHIND_S)
    setting.watched(said, 5, is_behind=False)
    setting.happens(*told(*range(10, 10 + 4 * BATCH), 5))
    assert said == [5, 10]


def test_others_have_their_batch_and_no_more(setting: Setting) -> None:
    said: list[int] = []
    for fd in range(10, 10 + 2 * BATCH):
        setting.watched(said, fd, is_behind=False)
    setting.watched(said, 5, is_behind=True)
    setting.happens(*told(5, *range(10, 10 + 2 * BATCH)))
    assert len(said) == BATCH and said[-1] == 5


def test_what_others_leave_to_be_sent_leaves_before_those_behind_are_looked_at(setting: Setting) -> None:
    said: list[str] = []

    def acts(name: str) -> Callable[[], object]:
        def act() -> None:
            said.append(name)
            setting.poller.turn_end.add(Held(said, f"{name} sent"))

        return act

    for fd, name in ((5, "last"), (6, "first")):
        setting.poller.watch(fd, READABLE, Connection(act=acts(name)))
    setting.poller.stand_behind(5)
    setting.happens(*told(5, 6))
    assert said == ["first", "first sent", "last", "last sent"]


def test_what_ends_is_of_the_time_of_those_behind(setting: Setting) -> None:
    said: list[int] = []

    def close() -> None:
        setting.clock.now += BEHIND_S

    for fd in (5, 6):
        setting.poller.watch(fd, READABLE, Connection(act=lambda: setting.poller.after_batch(Ending(close))))
        setting.poller.stand_behind(fd)
    setting.watched(said, 7, is_behind=True)
    setting.happens(*told(5, 6, 7))
    assert said == [] and not setting.poller.has_ends
    setting.happens()
    assert said == []
    setting.happens()
    assert said == [7]


def coming(setting: Setting, said: list[object], fd: int, *, comes: int = 0, took_s: float = 0.0) -> None:
    """It says its number, and what it does takes so long and makes another one ready."""

    def act() -> None:
        said.append(fd)
        setting.clock.now += took_s
        if comes:
            setting.epoll.events += told(comes)

    setting.poller.watch(fd, READABLE, Connection(act))


@pytest.mark.parametrize("is_much", [True, False])
def test_what_becomes_ready_meanwhile_is_dealt_with_before_the_loop_if_there_is_much_to_do(
    setting: Setting, is_much: bool
) -> None:
    said: list[object] = []
    coming(setting, said, 5, comes=7)
    coming(setting, said, 6)
    coming(setting, said, 7, comes=8)  # alone: nobody looks again
    coming(setting, said, 8)
    setting.epoll.events += told(5, 6) if is_much else told(5)
    setting.poller.turn()
    assert said == ([5, 6, 7] if is_much else [5])
    assert setting.epoll.events == told(8 if is_much else 7)


def test_looks_end_when_their_time_is_over(setting: Setting) -> None:
    said: list[object] = []
    for fd in (5, 6):
        coming(setting, said, fd, comes=fd, took_s=LOOK_S / 7)
    setting.epoll.events += told(5, 6)
    setting.poller.turn()
    assert said == [5, 6] * 5  # the first, and four that are two sevenths of it each


def test_between_two_looks_is_sent_and_closed_what_there_is(setting: Setting) -> None:
    said: list[object] = []

    def act() -> None:
        setting.poller.turn_end.add(Held(said, "sent"))
        setting.poller.after_batch(Ending(lambda: said.append("closed")))
        setting.epoll.events += told(6)

    setting.poller.watch(5, READABLE, Connection(act))
    coming(setting, said, 6)
    setting.epoll.events += told(5, 6)
    setting.poller.turn()
    assert said == [6, "closed", "sent", 6]


def test_a_batch_that_is_full_is_not_looked_behind(setting: Setting) -> None:
    said: list[int] = []
    for fd in range(10, 10 + 2 * BATCH):
        setting.watched(said, fd, is_behind=False)
    setting.epoll.events += told(*range(10, 10 + 2 * BATCH))
    setting.poller.turn()
    assert len(said) == BATCH
