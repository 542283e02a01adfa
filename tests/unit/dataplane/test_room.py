"""Who makes way for a newcomer, and what finding out costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbproxy.dataplane.room import ANSWERED, FOUND_AT_ONCE, IDLE, IDLE_S, LOOK_S, NOBODY, Guest, Room
from tests.support.fake_transport import GET, FakeLb, ok

NOW = 1000.0


class FakeGuest(Guest):
    def __init__(self, idle_s: float = -1.0, *, is_asked: bool = False, can_close: bool = True) -> None:
        self.since = NOW - idle_s if idle_s >= 0 else float("inf")
        self.is_asked = is_asked
        self.can_close = can_close
        self.left = ""

    def idle_since(self) -> float:
        return self.since

    def makes_way(self) -> bool:
        if not self.is_asked:
            self.left = IDLE
            self.since = float("inf")
        return not self.is_asked

    def closes_after_answer(self) -> bool:
        if self.can_close and not self.left:
            self.left = ANSWERED
            return True
        return False


def test_the_longest_idle_one_is_first() -> None:
    guests = [FakeGuest(idle_s) for idle_s in (3.0, 70.0, 0.1, 20.0)] + [FakeGuest()]
    room = Room([object(), *guests])
    for expected in (70.0, 20.0, 3.0):
        before = {guest: guest.left for guest in guests}
        assert room.make(NOW) == IDLE
        (gone,) = [guest for guest in guests if guest.left != before[guest]]
        assert gone is guests[[3.0, 70.0, 0.1, 20.0].index(expected)]
    assert [guest.left for guest in guests] == [IDLE, IDLE, "", IDLE, ""]


def test_who_has_just_asked_is_left_alone() -> None:
    guests = [FakeGuest(50.0, is_asked=True), FakeGuest(40.0)]
    assert Room(guests).make(NOW) == IDLE
    assert guests[1].left == IDLE and guests[0].left == ""


def test_who_became_busy_since_the_look_is_left_alone() -> None:
    guests = [FakeGuest(50.0), FakeGuest(40.0), FakeGuest(30.0)]
    room = Room(guests)
    assert room.make(NOW) == IDLE
    guests[1].since = float("inf")
    assert room.make(NOW) == IDLE
    assert guests[2].left == IDLE and guests[1].left == ""


def test_nobody_idle_means_a_last_answer() -> None:
    guests = [FakeGuest(IDLE_S - 0.1, can_close=False), FakeGuest(can_close=False), FakeGuest()]
    room = Room(guests)
    assert room.make(NOW) == ANSWERED and guests[2].left == ANSWERED
    assert room.make(NOW) == NOBODY
    assert Room([]).make(NOW) == NOBODY


def test_looking_is_bounded() -> None:
    """Each look finds many; without many to be found there is one in a sweep."""
    guests = [FakeGuest(2.0 + number / 1000) for number in range(3 * FOUND_AT_ONCE)]
    looks: list[int] = []

    class Swept:
        def __iter__(self) -> Iterator[FakeGuest]:
            looks.append(1)
            return iter(guests)

    room = Room(Swept())
    for _ in guests:
        assert room.make(NOW) == IDLE
    assert len(looks) == 3
    for _ in range(100):
        room.make(NOW)
    assert len(looks) == 3
    room.make(NOW + LOOK_S)
    assert len(looks) == 4


def test_nobody_is_kept_when_there_is_room_again() -> None:
    guests = [FakeGuest(5.0), FakeGuest(4.0)]
    room = Room(guests)
    room.make(NOW)
    room.forget()
    guests.clear()
    assert room.make(NOW) == NOBODY


# --- what a connection says of itself -------------------------------------------------------------------------------


def side(lb: FakeLb) -> Guest:
    (found,) = [item for item in lb.services.swept if isinstance(item, Guest)]
    return found


def test_a_connection_is_idle_from_its_answer_on() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        assert side(lb).idle_since() == lb.clock.now  # it has said nothing yet
        lb.advance(2.0)
        client.send(GET)
        assert side(lb).idle_since() == float("inf")
        lb.accept().send(ok())
        assert side(lb).idle_since() == lb.clock.now
        client.send(GET[:5])
        assert side(lb).idle_since() == float("inf")


def test_an_answer_that_has_not_left_is_under_way() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        client.send(GET)
        client.transport.unsent = 10
        lb.accept().send(ok())
        assert side(lb).idle_since() == float("inf")


@pytest.mark.parametrize("has_asked", [True, False])
def test_an_idle_connection_is_closed_unless_something_has_come(has_asked: bool) -> None:
    with FakeLb() as lb:
        client = lb.connect()
        client.send(GET)
        lb.accept().send(ok())
        if has_asked:
            client.transport._inbox.append(GET)
        assert side(lb).makes_way() is not has_asked
        lb.loop.run()
        assert client.is_open is has_asked and not client.saw_reset
        assert lb.of_listener("client_connections_evicted_total", "idle") == (not has_asked)


def test_one_that_lingers_has_had_its_answer() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        lb.accept().send(ok())
        assert client.saw_fin and client.is_open
        assert side(lb).idle_since() == lb.clock.now
        assert side(lb).makes_way()
        lb.loop.run()
        assert not client.is_open


def test_a_last_answer_says_so() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        assert not side(lb).closes_after_answer()
        client.send(GET)
        assert side(lb).closes_after_answer() and not side(lb).closes_after_answer()
        lb.accept().send(ok())
        assert b"\r\nConnection: close\r\n" in client.got() and client.saw_fin
        assert lb.of_listener("client_connections_evicted_total", "answered") == 1


@pytest.mark.parametrize("how", ["pipelined", "begun"])
def test_what_was_asked_in_advance_or_is_being_answered_is_not_the_last(how: str) -> None:
    with FakeLb() as lb:
        client = lb.connect()
        client.send(GET * (2 if how == "pipelined" else 1))
        server = lb.accept()
        if how == "begun":
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1")
        assert not side(lb).closes_after_answer()
