from __future__ import annotations

from collections.abc import Sequence

import pytest

from lbproxy.control.discovery.source import MIN_GAP_S, Trouble
from lbproxy.control.discovery.srv import AT_ONCE, MAX_TARGETS, NoSuchName, Record, SrvSource

NAME = "_predict._tcp.example.org"
HOLD_S = 300.0


class Bench:
    """Both kinds of answers are what the test says."""

    def __init__(self, *records: Record, interval_s: float = 5.0) -> None:
        self.now = 100.0
        self.name = NAME
        self.records: Sequence[Record] | OSError = records
        self.hosts: dict[str, Sequence[str] | OSError] = {"a.org": ["10.0.0.1"], "b.org": ["10.0.0.2", "fd00::2"]}
        self.at_work = self.most = 0
        self.source = SrvSource(NAME, interval_s, HOLD_S, self, lambda: self.now)

    async def srv(self, name: str) -> Sequence[Record]:
        assert name == self.name
        if isinstance(self.records, OSError):
            raise self.records
        return self.records

    async def addresses(self, target: str) -> Sequence[str]:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        answer = self.hosts[target]
        self.at_work -= 1
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def look(self, after_s: float = 0.0) -> list[str] | str:
        self.now += after_s
        answer = await self.source.look()
        return answer.why if isinstance(answer, Trouble) else [str(found.address) for found in answer]


async def test_each_target_is_a_server_at_each_of_its_addresses() -> None:
    bench = Bench(Record(10, 5, 5002, "b.org"), Record(10, 20, 5001, "a.org"), Record(20, 1, 5003, "a.org"))
    answer = await bench.source.look()
    assert not isinstance(answer, Trouble)
    assert [(item.name, str(item.address), item.weight, item.backup, item.host) for item in answer] == [
        ("a.org:5001/10.0.0.1", "10.0.0.1:5001", 20, False, "a.org"),
        ("b.org:5002/10.0.0.2", "10.0.0.2:5002", 5, False, "b.org"),
        ("b.org:5002/fd00::2", "[fd00::2]:5002", 5, False, "b.org"),
        ("a.org:5003/10.0.0.1", "10.0.0.1:5003", 1, True, "a.org"),
    ]


async def test_a_weight_of_nought_is_the_smallest() -> None:
    bench = Bench(Record(0, 0, 80, "a.org"), Record(0, 65535, 80, "b.org"))
    answer = await bench.source.look()
    assert not isinstance(answer, Trouble)
    assert [item.weight for item in answer] == [1, 65535, 65535]


async def test_the_order_of_the_records_changes_nothing() -> None:
    bench = Bench(Record(0, 1, 80, "b.org"), Record(0, 1, 80, "a.org"))
    first = await bench.source.look()
    bench.records = (Record(0, 1, 80, "a.org"), Record(0, 1, 80, "b.org"))
    assert await bench.source.look() == first


async def test_a_dot_says_that_there_is_no_server() -> None:
    bench = Bench(Record(0, 1, 80, "a.org"))
    await bench.look()
    bench.records = (Record(0, 0, 0, ""),)
    assert await bench.look() == []


async def test_an_answer_is_believed_whatever_it_replaces() -> None:
    bench = Bench(Record(0, 1, 80, "a.org"))
    await bench.look()
    bench.records = (Record(0, 1, 81, "b.org"),)
    assert await bench.look() == ["10.0.0.2:81", "[fd00::2]:81"]


@pytest.mark.parametrize("error", [OSError("the resolver said SERVFAIL"), TimeoutError("no answer within 3 s")])
async def test_who_does_not_answer_changes_nothing(error: OSError) -> None:
    bench = Bench(Record(0, 1, 80, "a.org"))
    await bench.look()
    bench.records = error
    assert await bench.look(10 * HOLD_S) == str(error)


async def test_a_name_that_is_gone_is_believed_after_a_while() -> None:
    bench = Bench(Record(0, 1, 80, "a.org"))
    await bench.look()
    bench.records = NoSuchName("there is no such name")
    assert await bench.look(10 * HOLD_S) == "there is no such name", "it counts from when that was said first"
    bench.records = OSError("SERVFAIL")
    assert await bench.look(1.0) == "SERVFAIL"
    bench.records = NoSuchName("there is no such name")
    assert await bench.look(HOLD_S - 1.1) == "there is no such name"
    assert await bench.look(0.2) == []
    assert bench.source.lacking == "there is no such name, for longer than dns.hold"
    bench.records = (Record(0, 1, 80, "a.org"),)
    assert await bench.look() == ["10.0.0.1:80"] and bench.source.lacking == ""


async def test_a_good_answer_begins_the_hold_anew() -> None:
    records = (Record(0, 1, 80, "a.org"),)
    bench = Bench(*records)
    for _ in range(3):
        bench.records = records
        assert await bench.look() == ["10.0.0.1:80"]
        bench.records = NoSuchName("there is no such name")
        await bench.look()
        assert await bench.look(HOLD_S - 1.0) == "there is no such name"


async def test_other_settings_of_a_name_know_what_was_found() -> None:
    bench = Bench(Record(0, 1, 80, "a.org"))
    await bench.look()
    bench.records = NoSuchName("there is no such name")
    await bench.look()
    for srv, expected in ((NAME, ()), ("_other._tcp.org", Trouble("there is no such name"))):
        other = SrvSource(srv, 5.0, 1.0, bench, lambda: bench.now + 2.0)
        other.succeed(bench.source)
        bench.name = srv
        assert await other.look() == expected


async def test_a_name_that_never_was_is_trouble_for_ever() -> None:
    bench = Bench()
    bench.records = NoSuchName("there is no such name")
    for _ in range(3):
        assert await bench.look(HOLD_S) == "there is no such name"


async def test_a_target_without_an_address_keeps_its_last() -> None:
    bench = Bench(Record(0, 1, 80, "a.org"), Record(0, 1, 80, "b.org"))
    both = ["10.0.0.1:80", "10.0.0.2:80", "[fd00::2]:80"]
    assert await bench.look() == both and bench.source.lacking == ""
    bench.hosts["b.org"] = OSError("SERVFAIL")
    assert await bench.look(HOLD_S) == both
    assert bench.source.lacking == "its target b.org: SERVFAIL"
    bench.hosts["b.org"] = NoSuchName("there is no such name")
    assert await bench.look() == both
    assert await bench.look(HOLD_S) == ["10.0.0.1:80"]
    bench.hosts["b.org"] = ["10.0.0.9"]
    assert await bench.look() == ["10.0.0.1:80", "10.0.0.9:80"] and bench.source.lacking == ""


async def test_targets_without_any_address_are_trouble() -> None:
    bench = Bench(Record(0, 1, 80, "a.org"))
    bench.hosts["a.org"] = OSError("SERVFAIL")
    assert await bench.look() == "its target a.org: SERVFAIL"


async def test_a_target_that_left_is_forgotten() -> None:
    bench = Bench(Record(0, 1, 80, "a.org"))
    await bench.look()
    bench.records = (Record(0, 1, 80, "b.org"),)
    await bench.look()
    assert set(bench.source._targets) == {"b.org"}


async def test_an_answer_without_end_is_no_answer() -> None:
    bench = Bench(*(Record(0, 1, 80, f"h{number}.org") for number in range(MAX_TARGETS)))
    bench.hosts = {f"h{number}.org": [f"10.0.0.{number}"] for number in range(MAX_TARGETS + 1)}
    assert len(await bench.look()) == MAX_TARGETS
    assert 1 <= bench.most <= AT_ONCE
    assert not isinstance(bench.records, OSError)
    bench.records = [*bench.records, Record(0, 1, 80, f"h{MAX_TARGETS}.org")]
    assert await bench.look() == f"the answer has {MAX_TARGETS + 1} targets, and {MAX_TARGETS} are the most"


async def test_a_record_without_a_port_is_no_server() -> None:
    assert await Bench(Record(0, 1, 0, "a.org"), Record(0, 1, 80, "b.org")).look() == ["10.0.0.2:80", "[fd00::2]:80"]


def test_it_has_words_for_what_happens() -> None:
    source = Bench(interval_s=0.1).source
    assert (source.name, source.kind, source.wait_s) == (f"srv:{NAME}", "dns", MIN_GAP_S)
    assert source.failed("SERVFAIL") == f"looking up SRV {NAME} failed: SERVFAIL"
    assert source.recovered(2) == f"SRV {NAME} resolves again, to 2 servers"
    assert source.gone() == f"SRV {NAME} no longer has it"
