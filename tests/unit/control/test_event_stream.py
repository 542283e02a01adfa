"""What readers of the stream are told and when, and who is dropped. The connections are in tests/scenarios."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import cast

import pytest

from lbproxy.address import parse_address
from lbproxy.control.event_log import EventLog
from lbproxy.control.event_stream import KEEP_ALIVE_S, KEPT_MESSAGES, RECENT, SLOW_S, EventStream, Reader
from lbproxy.control.metrics import Registry
from lbproxy.control.rates import Meter
from lbproxy.control.status import Json, StatusSource
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.least_connections import LeastConnections

SNAPSHOT_S = 0.003  # the aim is 0.001; a slow machine may take three times as long


class Transport:
    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class Bench:
    """A stream about one pool `p`; the clock is moved by hand."""

    def __init__(self, n_servers: int = 2, limit: int = 4, turns: list[Callable[[], None]] | None = None) -> None:
        self.now = 100.0
        self.n_built = 0
        strategy = LeastConnections({}, random.Random(1))
        servers = [Server(f"s{n}", parse_address(f"127.0.0.1:{5001 + n}")) for n in range(n_servers)]
        self.pool = Pool("p", servers, strategy, strategy)
        self.events = EventLog(lambda: 1_800_000_000.0 + self.now)
        self.source = StatusSource("1.2.3", 0.0, {"p": self.pool}, {"p": "least_connections"})
        self.stream = EventStream(
            self.status,
            Meter(Registry("1.2.3", {"p": self.pool})),
            self.events,
            lambda: self.now,
            lambda: 1_800_000_000.0 + self.now,
            limit,
            None if turns is None else turns.append,
        )

    def status(self) -> Json:
        self.n_built += 1
        return self.source.build("running", None, self.now)

    def join(self, last_event_id: str | None = None) -> Reader:
        return self.stream.join(cast(asyncio.Transport, Transport()), last_event_id)

    def pass_time(self, seconds: float) -> None:
        """In steps of the controller's tick."""
        for _ in range(round(seconds / 0.25)):
            self.now += 0.25
            self.stream.tick(self.now)

    def told(self, reader: Reader) -> list[tuple[str, Json]]:
        """Name and data of what a reader gets now."""
        found = []
        for message in self.stream.news(reader):
            text = message.decode()
            assert text.endswith("\n\n")
            fields = dict(line.partition(": ")[::2] for line in text[:-2].split("\n"))
            if "event" in fields:
                found.append((fields["event"], json.loads(fields["data"])))
        return found

    def kinds(self, reader: Reader) -> list[str]:
        return [kind for kind, _ in self.told(reader)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def was_aborted(reader: Reader) -> bool:
    return cast(Transport, reader.transport).is_aborted


def test_a_reader_is_told_the_state_first_with_what_happened_before(bench: Bench) -> None:
    bench.events.add("process", "ready")
    reader = bench.join()
    (kind, state), *rest = bench.told(reader)
    assert kind == "state"
    expected = json.loads(json.dumps(bench.status()))
    recent, history = state.pop("recent"), state.pop("history")
    assert state == expected
    assert [event["text"] for event in cast(list[Json], recent)] == ["ready"]
    assert history == {}
    assert [kind for kind, _ in rest] == ["rates"]
    assert bench.told(reader) == []


def test_the_history_is_there_for_who_comes_later(bench: Bench) -> None:
    bench.pass_time(12.0)
    assert bench.n_built == 0, "nobody listens"
    [(_, state), *_] = bench.told(bench.join())
    assert len(cast(dict[str, dict[str, list[float]]], state["history"])["p"]["t"]) == 2


def test_recent_events_are_at_most_two_hundred(bench: Bench) -> None:
    for number in range(RECENT + 50):
        bench.events.add("process", str(number))
    [(_, state), *_] = bench.told(bench.join())
    recent = cast(list[Json], state["recent"])
    assert (len(recent), recent[-1]["text"]) == (RECENT, str(RECENT + 49))


def test_rates_come_once_a_second_and_servers_when_they_changed(bench: Bench) -> None:
    reader = bench.join()
    bench.told(reader)
    bench.pass_time(0.75)
    assert bench.kinds(reader) == []
    bench.pass_time(0.25)
    assert bench.kinds(reader) == ["rates"]
    bench.pool.servers[1].inflight = 3
    bench.pass_time(1.0)
    (kind, told), (other, _) = bench.told(reader)
    assert (kind, other) == ("servers", "rates")
    [pool] = cast(list[Json], told["pools"])
    assert (pool["name"], pool["inflight"]) == ("p", 3)
    assert [server["name"] for server in cast(list[Json], pool["servers"])] == ["s1"]


def test_a_reader_that_could_not_take_it_is_told_the_last_state_of_each_not_all_of_them(bench: Bench) -> None:
    reader = bench.join()
    bench.told(reader)
    for count in range(1, 6):
        bench.pool.servers[count % 2].inflight = count
        bench.pass_time(1.0)
    told = bench.told(reader)
    assert [kind for kind, _ in told] == ["servers", "rates"]
    [pool] = cast(list[Json], told[0][1]["pools"])
    assert {s["name"]: s["inflight"] for s in cast(list[Json], pool["servers"])} == {"s0": 4, "s1": 5}


def test_an_event_is_told_with_an_id_at_the_next_tick(bench: Bench) -> None:
    reader = bench.join()
    bench.told(reader)
    bench.events.add("live", "drained", pool="p", server="s0")
    reader.wake.clear()
    bench.pass_time(0.25)
    assert reader.wake.is_set()
    [message] = bench.stream.news(reader)
    number, kind, data, _, _ = message.decode().split("\n")
    assert number == f"id: {bench.events.id_of(1)}"
    assert kind == "event: event"
    assert json.loads(data.removeprefix("data: "))["text"] == "drained"


def test_who_comes_back_gets_what_he_missed_and_nothing_twice(bench: Bench) -> None:
    for text in ("one", "two", "three"):
        bench.events.add("process", text)
    (kind, state), *rest = bench.told(bench.join(bench.events.id_of(1)))
    assert kind == "state"
    assert [event["text"] for event in cast(list[Json], state["recent"])] == ["one"]
    assert [(kind, told["text"]) for kind, told in rest if kind == "event"] == [("event", "two"), ("event", "three")]


def test_a_new_server_means_the_whole_state_again(bench: Bench) -> None:
    reader = bench.join()
    bench.told(reader)
    bench.pool.add(Server("s9", parse_address("127.0.0.1:5099")), bench.now)
    bench.pass_time(1.0)
    assert bench.kinds(reader) == ["state", "rates"]


def test_what_changes_while_a_message_is_taken_is_told_after_it(bench: Bench) -> None:
    reader = bench.join()
    news = bench.stream.news(reader)
    assert b"event: state" in next(news)
    bench.pool.servers[0].inflight = 1
    bench.pass_time(1.0)
    assert b"event: servers" in next(news)


def test_a_comment_keeps_the_connection_alive(bench: Bench) -> None:
    reader = bench.join()
    bench.told(reader)
    bench.pass_time(KEEP_ALIVE_S)
    assert b": still here\n\n" in list(bench.stream.news(reader))
    assert b": still here\n\n" not in list(bench.stream.news(reader))


def test_one_snapshot_serves_all_readers(bench: Bench) -> None:
    readers = [bench.join() for _ in range(4)]
    assert bench.n_built == 1
    first, *others = [list(bench.stream.news(reader)) for reader in readers]
    assert all(message is same for other in others for message, same in zip(first, other, strict=True))
    bench.pass_time(3.0)
    assert bench.n_built == 4


def test_nothing_is_made_for_nobody(bench: Bench) -> None:
    reader = bench.join()
    bench.stream.leave(reader)
    bench.pass_time(30.0)
    assert bench.n_built == 1


def test_messages_that_strangers_can_ask_for_are_not_kept_for_long(bench: Bench) -> None:
    for number in range(100):
        bench.events.add("process", str(number))
    for number in range(100):
        reader = bench.join(bench.events.id_of(number))
        assert bench.kinds(reader)[0] == "state"
        bench.stream.leave(reader)
        assert len(bench.stream._made) <= KEPT_MESSAGES


def test_a_reader_that_takes_nothing_is_dropped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    slow, quick = bench.join(), bench.join()
    slow.blocked_at = bench.now
    bench.pass_time(SLOW_S - 0.25)
    assert not was_aborted(slow)
    bench.pass_time(0.25)
    assert was_aborted(slow)
    assert not was_aborted(quick)
    assert "took nothing for 10 s" in caplog.text
    assert bench.stream.refusal() is None


def test_there_are_only_so_many_readers(bench: Bench) -> None:
    readers = [bench.join() for _ in range(4)]
    refusal = bench.stream.refusal()
    assert refusal is not None
    assert refusal.startswith("4 readers of events are connected")
    bench.stream.leave(readers[0])
    assert bench.stream.refusal() is None


def test_at_the_end_the_last_word_is_an_event_and_nobody_is_taken(bench: Bench) -> None:
    reader, stuck = bench.join(), bench.join()
    bench.told(reader)
    stuck.blocked_at = bench.now
    bench.pass_time(2.0)
    reader.wake.clear()
    bench.events.add("process", "lbproxy stops")
    bench.stream.finish()
    assert reader.wake.is_set()
    kind, told = bench.told(reader)[-1]
    assert (kind, told["text"]) == ("event", "lbproxy stops")
    assert bench.stream.refusal() == "lbproxy is stopping."
    assert was_aborted(stuck)
    assert not was_aborted(reader)


def test_a_snapshot_of_a_hundred_servers_is_cheap() -> None:
    """The best of many tries, in seconds of this thread, so that others on the machine do not count."""
    bench = Bench(100)

    def cost_s() -> float:
        began = time.thread_time()
        bench.status()
        return time.thread_time() - began

    assert min(cost_s() for _ in range(200)) < SNAPSHOT_S


def test_each_reader_is_woken_in_a_turn_of_the_loop_of_its_own() -> None:
    turns: list[Callable[[], None]] = []
    bench = Bench(turns=turns)
    readers = [bench.join() for _ in range(3)]

    def are_awake() -> int:
        return sum(reader.wake.is_set() for reader in readers)

    bench.stream.tick(bench.now)
    assert are_awake() == 1
    bench.stream.tick(bench.now + 0.25)  # on a loop that is behind: they are not made more
    assert len(turns) == 1
    turns.pop()()
    assert are_awake() == 2
    bench.stream.leave(readers[2])
    turns.pop()()
    assert turns == []
    for reader in readers:
        reader.wake.clear()
    bench.stream.tick(bench.now + 0.5)
    turns.pop()()
    assert readers[0].wake.is_set() and readers[1].wake.is_set() and turns == []
