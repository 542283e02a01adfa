"""A model server: slots, backlog, and what it makes of clients that left. The alarm is rung by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, cast

from benchmarks.balancing.alarm import Alarm
from benchmarks.balancing.origin import Books, Connection, Server, Spec, Visit, parse_books


class HandAlarm:
    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def at(self, when: float, call: Callable[[], None]) -> None:
        self.due.append((when, call))

    def ring(self) -> None:
        """The earliest."""
        self.due.sort(key=lambda item: item[0])
        self.due.pop(0)[1]()


class FakeConnection:
    def __init__(self) -> None:
        self.answers: list[int] = []

    def answer(self, status: int) -> None:
        self.answers.append(status)


def at_once(callback: Callable[[], object]) -> None:
    callback()


def make(slots: int, soon: Callable[[Callable[[], object]], object] = at_once, **spec: Any) -> tuple[Server, HandAlarm]:
    alarm = HandAlarm()
    return Server(Spec(1, slots, **spec), cast(Alarm, alarm), soon), alarm


def arrive(server: Server, number: int, work_s: float = 1.0) -> tuple[Visit, FakeConnection]:
    visit, connection = Visit(number, work_s, arrived=100.0), FakeConnection()
    server.arrived(visit, cast(Connection, connection))
    return visit, connection


def test_as_many_as_slots_are_worked_on_and_the_others_wait_in_order() -> None:
    server, alarm = make(2)
    connections = [arrive(server, number)[1] for number in range(4)]
    assert len(alarm.due) == 2 and server.books.most_at_once == 4
    alarm.ring()
    assert [connection.answers for connection in connections] == [[200], [], [], []]
    assert len(alarm.due) == 2
    for _ in range(3):
        alarm.ring()
    assert all(connection.answers == [200] for connection in connections)


def test_a_slow_server_takes_longer() -> None:
    server, alarm = make(1, speed=0.25)
    arrive(server, 0)
    assert alarm.due[0][0] == 104.0


def test_work_for_a_client_that_left_goes_on_but_is_not_counted_as_present() -> None:
    server, alarm = make(1)
    visit, gone = arrive(server, 0)
    server.aborted(visit)
    _, next_one = arrive(server, 1)
    assert server.books.most_at_once == 1
    assert len(alarm.due) == 1  # the slot is still taken
    alarm.ring()
    assert gone.answers == [] and len(alarm.due) == 1
    alarm.ring()
    assert next_one.answers == [200]
    arrive(server, 2)
    assert server.books.most_at_once == 1


def test_a_reset_that_the_loop_tells_of_a_turn_late_was_there_before() -> None:
    turns: list[Callable[[], object]] = []
    server, _ = make(1, turns.append)
    visit, _ = arrive(server, 0)
    while turns:
        turns.pop(0)()
    arrive(server, 1)
    turns.pop(0)()
    server.aborted(visit)
    turns.pop(0)()
    assert server.books.most_at_once == 1
    arrive(server, 2)
    while turns:
        turns.pop(0)()
    assert server.books.most_at_once == 2


def test_a_failing_server_answers_at_once_however_many_there_are() -> None:
    server, alarm = make(1, fail_status=503)
    connections = [arrive(server, number)[1] for number in range(3)]
    assert [when for when, _ in alarm.due] == [100.001] * 3
    for _ in range(3):
        alarm.ring()
    assert all(connection.answers == [503] for connection in connections)


def test_books_survive_the_wire() -> None:
    books = [Books(1, 2, [Visit(0, 0.5, 1.0, 2.0, True)])]
    assert parse_books(json.dumps([dataclasses.asdict(book) for book in books]).encode()) == books
