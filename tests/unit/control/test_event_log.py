import json

import pytest

from lbproxy.address import parse_address
from lbproxy.control.event_log import TEXT_CHARS, VALUE_BYTES, EventLog


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def texts(log: EventLog, after: int = 0) -> list[str]:
    return [json.loads(event.text)["text"] for event in log.after(after)]


def test_an_event_is_a_line_of_json(clock: Clock) -> None:
    log = EventLog(clock)
    log.add("live", "line\nbreak", pool="p", server="s", by="ci from 192.0.2.1", old={"weight": 1}, new={"weight": 2})
    [event] = log.after(0)
    assert event.number == 1
    assert "\n" not in event.text
    assert json.loads(event.text) == {
        "t": 1000.0,
        "kind": "live",
        "pool": "p",
        "server": "s",
        "text": "line\nbreak",
        "by": "ci from 192.0.2.1",
        "old": {"weight": 1},
        "new": {"weight": 2},
    }


def test_the_ring_has_a_bound_in_events_and_in_bytes(clock: Clock) -> None:
    log = EventLog(clock, n_events=3, n_bytes=10_000)
    for number in range(5):
        log.add("process", str(number))
    assert texts(log) == ["2", "3", "4"]
    log.add("process", "x" * 400)
    small = EventLog(clock, n_bytes=1000)
    for number in range(100):
        small.add("process", f"{number} {'x' * 100}")
    kept = small.after(0)
    assert sum(len(event.text) for event in kept) <= 1000
    assert [event.number for event in kept] == list(range(100 - len(kept) + 1, 101))


def test_what_is_too_long_is_cut_and_what_is_too_large_left_out(clock: Clock) -> None:
    log = EventLog(clock)
    log.add("reload", "y" * 5000, old=list(range(10_000)), new="z" * (VALUE_BYTES - 2))
    told = json.loads(log.after(0)[0].text)
    assert told["text"] == "y" * (TEXT_CHARS - 3) + "..."
    assert told["old"] is None
    assert told["new"] == "z" * (VALUE_BYTES - 2)


def test_a_value_that_is_no_json_is_told_as_text(clock: Clock) -> None:
    log = EventLog(clock)
    log.add(
        "reload",
        "the config is another one",
        old=parse_address("127.0.0.1:80"),
        new=[parse_address(":1", default_host="a")],
    )
    told = json.loads(log.after(0)[0].text)
    assert (told["old"], told["new"]) == ("127.0.0.1:80", ["a:1"])


def test_a_server_that_flaps_does_not_push_the_others_out(clock: Clock) -> None:
    log = EventLog(clock)
    log.add("reload", "the config is another one")
    for number in range(1, 5001):
        log.add("flip", "it is down", pool="p", server="s", new="down")
        log.add("flip", "it is up", pool="p", server="s", new="up")
        clock.now = 1000.0 + number * 0.001
    told = texts(log)
    assert told[:3] == ["the config is another one", "it is down", "it is up"]
    assert told[3] == "it is down (999 more like this were left out)"
    assert len(told) == 1 + 2 * 5


def test_what_a_reader_missed(clock: Clock) -> None:
    log = EventLog(clock)
    for number in range(1, 6):
        log.add("process", str(number))
    assert texts(log, after=3) == ["4", "5"]
    assert log.after(5) == []
    assert [event.number for event in log.until(4, 3)] == [2, 3, 4]
    assert [event.number for event in log.until(2, 200)] == [1, 2]
    assert log.until(0, 200) == []


def test_events_that_left_the_ring_are_not_found_again(clock: Clock) -> None:
    log = EventLog(clock, n_events=2)
    for number in range(1, 6):
        log.add("process", str(number))
    assert [event.number for event in log.after(1)] == [4, 5]
    assert [event.number for event in log.until(4, 10)] == [4]
    assert log.until(3, 10) == []


def test_an_id_says_how_far_a_reader_is(clock: Clock) -> None:
    log = EventLog(clock)
    for number in range(3):
        log.add("process", str(number))
    assert log.position(log.id_of(2)) == 2
    assert log.position(None) == 3
    for wrong in ("", "x", "7", "a-b", "-", "1-\u0661", f"{log.id_of(2)}-1", "1-" + "9" * 1000):
        assert log.position(wrong) == 3, wrong
    assert log.position(log.id_of(999)) == 3


def test_the_id_of_another_process_means_that_all_is_news(clock: Clock) -> None:
    before = EventLog(clock)
    before.add("process", "1")
    given = before.id_of(1)
    clock.now += 60.0
    after = EventLog(clock)
    after.add("process", "2")
    assert after.position(given) == 0
