"""Flushes come once, in order, after the turn; a defect in one does not keep the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from lbproxy.dataplane.net.turn_end import TurnEnd, Writer


class Loop:
    def __init__(self) -> None:
        self.due: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.due.append(callback)

    def run(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


class Noted(Writer):
    def __init__(self, name: str, said: list[str], then: Callable[[], object] | None = None) -> None:
        self.name = name
        self.said = said
        self.then = then

    def flush(self) -> None:
        self.said.append(self.name)
        if self.then is not None:
            self.then()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def defects() -> list[tuple[str, BaseException]]:
    return []


@pytest.fixture
def turn_end(loop: Loop, defects: list[tuple[str, BaseException]]) -> TurnEnd:
    return TurnEnd(cast(asyncio.AbstractEventLoop, loop), lambda where, error: defects.append((where, error)))


def test_all_are_told_once_when_the_turn_ends(loop: Loop, turn_end: TurnEnd) -> None:
    said: list[str] = []
    for name in "abc":
        turn_end.add(Noted(name, said))
    assert said == []
    assert len(loop.due) == 1
    loop.run()
    assert said == ["a", "b", "c"]
    loop.run()
    assert said == ["a", "b", "c"]


def test_who_asks_while_others_are_told_is_told_too(loop: Loop, turn_end: TurnEnd) -> None:
    said: list[str] = []
    turn_end.add(Noted("a", said, lambda: turn_end.add(Noted("b", said))))
    loop.run()
    assert said == ["a", "b"]
    loop.run()
    assert said == ["a", "b"]


def test_in_the_middle_of_a_turn_the_loop_is_not_asked(loop: Loop, turn_end: TurnEnd) -> None:
    said: list[str] = []
    turn_end.is_turning = True
    turn_end.add(Noted("a", said))
    assert (loop.due, said) == ([], [])
    turn_end.flush()
    assert said == ["a"]


def test_a_defect_keeps_nobody_else(loop: Loop, turn_end: TurnEnd, defects: list[tuple[str, BaseException]]) -> None:
    said: list[str] = []

    def breaks() -> None:
        raise ZeroDivisionError

    turn_end.add(Noted("a", said, breaks))
    turn_end.add(Noted("b", said))
    loop.run()
    assert said == ["a", "b"]
    assert [(where, type(error)) for where, error in defects] == [("flush", ZeroDivisionError)]


def test_what_is_to_come_first_does(loop: Loop, turn_end: TurnEnd) -> None:
    said: list[str] = []
    turn_end.before = lambda: said.append("end")
    turn_end.add(Noted("a", said))
    loop.run()
    assert said == ["end", "a"]


def test_a_flush_inside_of_a_flush_tells_nobody_twice(loop: Loop, turn_end: TurnEnd) -> None:
    said: list[str] = []
    turn_end.add(Noted("a", said, turn_end.flush))
    turn_end.add(Noted("b", said))
    loop.run()
    assert said == ["a", "b"]
    turn_end.add(Noted("c", said))
    loop.run()
    assert said == ["a", "b", "c"]
