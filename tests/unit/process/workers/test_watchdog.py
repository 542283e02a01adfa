from __future__ import annotations

import os
import signal

import pytest

from lbproxy.process.workers import watchdog
from lbproxy.process.workers.board import SERVING, STARTING, Board
from lbproxy.process.workers.child import Child
from lbproxy.process.workers.stuck import SILENT_S, Look
from lbproxy.process.workers.watchdog import LOOK_S, Watchdog


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append(pid) if number == signal.SIGKILL else None)
    monkeypatch.setattr(watchdog, "look", lambda pid: Look("T", 1.0))
    return found


def crew(now: float) -> tuple[list[Child], Board]:
    """A controller and a worker, 100 and 101, whose loops ran `now`."""
    children, board = [Child(0), Child(1)], Board(1, [0] * 16)
    for child in children:
        child.pid = 100 + child.number
        board.started(child.number, child.pid, now)
        board.beat(child.number, now)
        board.tell(child.number, SERVING)
    return children, board


def look_until(dog: Watchdog, children: list[Child], board: Board, first: float, last: float) -> None:
    now = first
    while now <= last:
        board.beat(0, now)
        dog.look(children, board, now, is_late=False)
        now += LOOK_S


def test_who_is_stopped_is_killed_and_who_answers_is_not(killed: list[int]) -> None:
    dog = Watchdog()
    children, board = crew(100.0)
    look_until(dog, children, board, 96.0, 100.0)
    look_until(dog, children, board, 100.5, 100.0 + SILENT_S - LOOK_S)
    assert killed == []
    look_until(dog, children, board, 100.0 + SILENT_S, 100.0 + SILENT_S)
    assert killed == [101]


def test_who_waits_to_serve_is_looked_at_like_any_other_and_who_is_being_made_has_more_time(killed: list[int]) -> None:
    """A worker of a new lbproxy that is stopped before it serves would else keep the upgrade waiting for a minute."""
    children, board = crew(100.0)
    board.started(0, 100, 100.0)
    board.tell(1, STARTING)
    dog = Watchdog()
    now = 96.0
    while now <= 100.0 + SILENT_S:
        dog.look(children, board, now, is_late=False)
        now += LOOK_S
    assert killed == [101]


def test_after_a_pause_of_its_own_it_gives_the_others_time(killed: list[int]) -> None:
    dog = Watchdog()
    children, board = crew(100.0)
    look_until(dog, children, board, 96.0, 100.0)
    look_until(dog, children, board, 160.0, 160.0 + SILENT_S - LOOK_S)
    assert killed == []
    look_until(dog, children, board, 160.0 + SILENT_S, 160.0 + SILENT_S)
    assert killed == [101]


def test_when_all_should_have_ended_whoever_has_not_is_killed(killed: list[int]) -> None:
    children, board = crew(100.0)
    children[0].pid = 0
    Watchdog().look(children, board, 100.0, is_late=True)
    assert killed == [101]


def test_it_is_due_now_and_then() -> None:
    dog = Watchdog()
    assert dog.is_due(100.0)
    dog.look([], Board(1, [0] * 16), 100.0, is_late=False)
    assert [dog.is_due(100.0 + LOOK_S / 2), dog.is_due(100.0 + LOOK_S)] == [False, True]
