"""A connection stops between two frames when it has done as much as it may, and goes on as if it had not."""

from __future__ import annotations

import random

import pytest

from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import CONTINUATION, DATA, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.h2_ends import GET, POST, RecordingEnd, block, frame, headers

BEGIN = PREFACE + frames.settings([])


class Stopping(RecordingEnd):
    """Has no more than it was given; each of `more` is given when it asks."""

    def __init__(self, own: OwnSettings | None = None, begin: bytes = BEGIN, units: int = 1000) -> None:
        super().__init__(True, own)
        self.more: list[int] = []
        self.gets(begin, units)

    def has_turn(self) -> bool:
        if not self.more:
            return False
        self.n_left = self.more.pop(0)
        return True

    def gets(self, octets: bytes, units: int, now: float = 0.0) -> None:
        self.n_left = units
        self.received(octets, now)

    @property
    def begun(self) -> list[object]:
        """Streams."""
        return [entry[1] for entry in self.seen if entry[0] == "head"]


def ask(*numbers: int) -> bytes:
    return b"".join([headers(number, GET, is_end=True) for number in numbers])


def test_it_stops_and_goes_on() -> None:
    end = Stopping()
    end.gets(ask(1, 3, 5), 1)
    assert end.begun == [1]
    assert end.n_waiting == len(ask(3, 5))
    assert not end.is_between
    end.n_left = 1
    end.go_on()
    assert end.begun == [1, 3]
    assert end.n_waiting == len(ask(5))
    end.n_left = 1
    end.go_on()
    assert end.begun == [1, 3, 5]
    assert end.n_waiting == 0
    assert end.is_between
    end.go_on()
    assert end.begun == [1, 3, 5], "nothing waits"


def test_it_asks_before_it_stops() -> None:
    end = Stopping()
    end.more = [1]
    end.gets(ask(1, 3, 5), 1)
    assert end.begun == [1, 3]


def test_whoever_does_not_say_how_much_has_no_limit() -> None:
    end = RecordingEnd(True)
    end.received(BEGIN + ask(*range(1, 2001, 2)), 0.0)
    assert end.n_waiting == 0


def test_it_does_not_stop_for_what_is_not_all_there() -> None:
    end = Stopping()
    octets = ask(1, 3)
    end.gets(octets[:-1], 1)
    assert end.n_waiting == 0
    assert end.begun == [1]
    end.gets(octets[-1:], 1)
    assert end.begun == [1, 3]


def test_what_was_begun_before_ends_before_the_rest() -> None:
    end = Stopping()
    octets = ask(1, 3, 5)
    end.gets(octets[:12], 1)
    end.gets(octets[12:], 1)
    assert end.begun == [1]
    assert end.n_waiting == len(ask(3, 5))


def test_what_comes_meanwhile_stands_behind() -> None:
    end = Stopping()
    end.gets(ask(1, 3), 1)
    end.gets(ask(5)[:10], 1000)
    end.gets(ask(5)[10:] + ask(7), 1000)
    assert end.begun == [1]
    end.n_left = 1000
    end.go_on()
    assert end.begun == [1, 3, 5, 7]


def test_a_part_of_a_frame_behind_is_kept() -> None:
    end = Stopping()
    end.gets(ask(1, 3, 5)[:-3], 1)
    end.n_left = 1000
    end.go_on()
    assert end.begun == [1, 3]
    assert end.n_waiting == 0
    assert not end.is_between
    end.gets(ask(5)[-3:], 1000)
    assert end.begun == [1, 3, 5]


def test_a_body_that_came_with_its_head_goes_with_it() -> None:
    end = Stopping()
    end.gets(headers(1, POST) + frame(DATA, 0, 1, b"a") + frame(DATA, END_STREAM, 1, b"b"), 1)
    assert [entry[0] for entry in end.seen if entry[0] in ("head", "data")] == ["head", "data"]


def answered(*frames_of_one: bytes) -> list[str]:
    """What a client reads of this in one turn."""
    end = Reading()
    for _ in range(2):
        end.send_request(end.open_stream(), b"GET", b"http", b"a", b"/", b"", b"", True)
    end.received(frames.settings([]), 0.0)
    end.seen.clear()
    end.n_left = 1
    end.received(b"".join(frames_of_one), 0.0)
    return [str(entry[0]) for entry in end.seen]


class Reading(RecordingEnd):
    """A client that has no more than it was given."""

    def __init__(self) -> None:
        super().__init__(False)
        self.n_left = 1000

    def has_turn(self) -> bool:
        return False


def test_an_answer_that_came_whole_is_read_whole() -> None:
    head = headers(1, [(b":status", b"200")])
    body, last = frame(DATA, 0, 1, b"a"), headers(1, [(b"x-a", b"b")], is_end=True)
    assert answered(head, body, last) == ["head", "data", "trailers"]
    assert answered(head, body, body, last) == ["head", "data"]
    assert answered(head, body, headers(3, [(b":status", b"200")])) == ["head", "data"]
    assert answered(head, frame(DATA, 0, 3, b"a")) == ["head"]


def test_the_preface_may_be_all_that_there_is_a_turn_for() -> None:
    end = Stopping(begin=BEGIN + ask(1), units=1)
    assert end.begun == []
    end.n_left = 1
    end.go_on()
    assert end.begun == [1]


def test_what_waits_may_be_dropped() -> None:
    end = Stopping()
    end.gets(ask(1, 3), 1)
    end.drop_waiting()
    assert end.n_waiting == 0
    end.go_on()
    assert end.begun == [1]


def test_nothing_waits_on_a_connection_that_has_failed() -> None:
    end = Stopping()
    end.gets(frame(PING, 0, 1, bytes(8)) + ask(1), 1)
    assert end.is_failed
    assert end.n_waiting == 0
    end.go_on()
    assert end.begun == []


def test_floods_are_measured_by_when_they_were_read() -> None:
    """Waiting for its turn is no merit of who sends too much."""
    own = OwnSettings(control_frames=10, control_frames_period_s=1.0)
    end = Stopping(own)
    end.gets(frame(PING, 0, 0, bytes(8)) * 12, 1, now=5.0)
    for _ in range(9):
        end.n_left = 1
        end.go_on()
    assert not end.is_failed
    end.n_left = 1
    end.go_on()
    assert end.is_failed


@pytest.mark.parametrize(
    ("costly", "cheap"),
    [
        (headers(1, GET, is_end=True), frame(PING, 0, 0, bytes(8))),
        (frame(HEADERS, 0, 1, block(GET)[:1]) + frame(CONTINUATION, 4, 1, block(GET)[1:]), headers(1, GET)),
        (frame(PING, 0, 0, bytes(8)) * 2, frame(PING, 0, 0, bytes(8))),
        (headers(1, [*GET, (b"a", b"x" * 2000)], is_end=True), headers(1, GET, is_end=True)),
        (headers(1, GET) + frame(DATA, 0, 1, bytes(8000)), headers(1, GET) + frame(DATA, 0, 1, bytes(80))),
    ],
)
def test_what_is_dear_costs_more(costly: bytes, cheap: bytes) -> None:
    spent = []
    for octets in (costly, cheap):
        end = Stopping()
        end.gets(octets, 10_000)
        assert not end.is_failed
        spent.append(10_000 - end.n_left)
    assert spent[0] > spent[1] > 0


@pytest.mark.parametrize("seed", range(20))
def test_where_it_stops_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    octets = bytearray()
    for number in range(1, 60, 2):
        octets += headers(number, POST if rng.random() < 0.5 else GET)
        for _ in range(rng.randrange(3)):
            octets += frame(DATA, 0, number, b"x" * rng.randrange(1, 3000))
        octets += rng.choice([frame(DATA, END_STREAM, number, b"."), frame(RST_STREAM, 0, number, bytes(4)), b""])
        octets += rng.choice([b"", frame(PING, 0, 0, bytes(8)), frames.settings([(4, rng.randrange(70_000))])])
    straight = RecordingEnd(True)
    straight.received(BEGIN + octets, 0.0)
    end = Stopping()
    at = 0
    while at < len(octets) or end.n_waiting:
        if end.n_waiting and rng.random() < 0.7:
            end.n_left = rng.randrange(1, 50)
            end.go_on()
        else:
            step = rng.randrange(1, 4000)
            end.gets(bytes(octets[at : at + step]), rng.randrange(1, 50))
            at += step
    assert end.seen == straight.seen
    assert end.take_output() == straight.take_output()
