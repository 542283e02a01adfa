"""The lock of the shared books, as one process sees it; what its owner's death does to it is a scenario."""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Callable

import pytest

from lbproxy.shared.mutex import MUTEX_CELLS, SPINS, Mutex, MutexError, spin
from lbproxy.shared.segment import Segment


def make(held_long: Callable[[], None] = lambda: None) -> Mutex:
    mutex = Mutex(Segment(MUTEX_CELLS + 3).cells, 3, held_long)
    mutex.create()
    return mutex


def test_it_is_taken_and_let_go() -> None:
    mutex = make()
    for _ in range(2):
        assert not mutex.enter()
        mutex.leave()


def test_who_has_it_not_can_t_let_it_go() -> None:
    mutex = make()
    with pytest.raises(MutexError):
        mutex.leave()


def test_who_waits_for_long_says_so_and_waits_on() -> None:
    alarms: list[int] = []
    has_it, may_go = threading.Event(), threading.Event()

    def held_long() -> None:
        alarms.append(1)
        if len(alarms) == 2:
            may_go.set()

    mutex = make(held_long)

    def hold() -> None:
        mutex.enter()
        has_it.set()
        may_go.wait(60)
        mutex.leave()

    owner = threading.Thread(target=hold)
    owner.start()
    assert has_it.wait(60)
    assert not mutex.enter()
    owner.join()
    assert len(alarms) >= 2
    mutex.leave()


@pytest.mark.parametrize("end", [0, errno.EOWNERDEAD])
def test_it_spins_before_it_waits(end: int) -> None:
    results = iter([errno.EBUSY] * (SPINS - 1) + [end])
    assert spin(lambda: next(results)) == end


def test_it_does_not_spin_for_long() -> None:
    results = iter([errno.EBUSY] * SPINS + [0])
    assert spin(lambda: next(results)) == errno.EBUSY
    assert next(results) == 0


def test_a_system_without_such_locks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(name: str | None) -> object:
        return object()

    monkeypatch.setattr(ctypes, "PyDLL", bare)
    with pytest.raises(MutexError, match="no robust mutexes"):
        Mutex(Segment(MUTEX_CELLS).cells, 0, lambda: None)
