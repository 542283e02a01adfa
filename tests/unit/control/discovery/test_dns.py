import asyncio
import threading
from collections.abc import Sequence

import pytest

from lbproxy.address import parse_address
from lbproxy.config.model import ServerSpec
from lbproxy.control.discovery import dns
from lbproxy.control.discovery.dns import NameSource, ThreadResolver, blocking_look_up
from lbproxy.control.discovery.source import MIN_GAP_S, Answer, Trouble
from lbproxy.domain.names import Name


class Bench:
    """One name, answered by `answer`. waits: the times between its looks."""

    def __init__(self, *specs: str, interval_s: float = 5.0, phase: float = 0.5) -> None:
        self.answer: Sequence[str] | OSError = []
        self.n_failures = 0
        self.waits: list[float] = []
        self.known = Name("model", 90.0)
        made = [ServerSpec(address=parse_address(text)) for text in specs or ("model:5001",)]
        self.source = NameSource(
            self.known, made, interval_s, phase, self.resolve, lambda: 100.0, self.failed, self.pause
        )

    async def resolve(self, host: str) -> Sequence[str]:
        assert host == "model"
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    def failed(self) -> None:
        self.n_failures += 1

    async def pause(self, woken: asyncio.Event, wait_s: float) -> None:
        self.waits.append(wait_s)
        if len(self.waits) == 3:
            raise asyncio.CancelledError


async def test_each_spec_has_a_server_at_each_address() -> None:
    bench = Bench("model:5001", "model:5002")
    bench.answer = ["10.0.0.1", "fd00::1"]
    found = await bench.source.look()
    assert not isinstance(found, Trouble)
    assert [(item.name, str(item.address), item.host) for item in found] == [
        ("model:5001/10.0.0.1", "10.0.0.1:5001", "model"),
        ("model:5001/fd00::1", "[fd00::1]:5001", "model"),
        ("model:5002/10.0.0.1", "10.0.0.1:5002", "model"),
        ("model:5002/fd00::1", "[fd00::1]:5002", "model"),
    ]
    assert (bench.known.n_addresses, bench.known.why, bench.n_failures) == (2, "", 0)
    assert bench.known.servers == ("model:5001", "model:5002")


async def test_a_server_is_as_its_spec_says() -> None:
    bench = Bench()
    bench.source.specs = (
        ServerSpec(address=parse_address("model:1"), name="gpu", weight=4, max_inflight=2, backup=True),
    )
    bench.answer = ["10.0.0.1"]
    found = await bench.source.look()
    assert not isinstance(found, Trouble)
    (item,) = found
    assert (item.name, item.weight, item.max_inflight, item.backup) == ("gpu/10.0.0.1", 4, 2, True)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OSError(1, "Name or service not known"), "Name or service not known"),
        (TimeoutError("no answer within 2 s"), "no answer within 2 s"),
        ([], "the answer holds no address"),
    ],
)
async def test_a_look_up_without_an_answer_is_trouble(answer: Sequence[str] | OSError, why: str) -> None:
    bench = Bench()
    bench.answer = answer
    assert await bench.source.look() == Trouble(why)
    assert (bench.known.why, bench.known.is_unresolved, bench.n_failures) == (why, True, 1)


async def test_the_second_round_has_a_moment_of_its_own() -> None:
    """Names are not looked up in step."""
    bench = Bench(interval_s=8.0, phase=0.25)
    heard: list[Answer] = []
    bench.answer = ["10.0.0.1"]
    with pytest.raises(asyncio.CancelledError):
        await bench.source.watch(heard.append)
    assert (bench.waits, len(heard)) == ([2.0, 8.0, 8.0], 3)


def test_no_name_is_looked_up_all_the_time() -> None:
    assert Bench(interval_s=0.001).source.interval_s == MIN_GAP_S


# --- the resolver ---------------------------------------------------------------------------------------------------


class Blocked:
    """Look-ups that do not return before `release`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release = threading.Event()
        self.calls: list[str] = []
        monkeypatch.setattr(dns, "blocking_look_up", self._look_up)

    def _look_up(self, host: str) -> list[str]:
        self.calls.append(host)
        self.release.wait(10)
        return ["10.0.0.1"]


async def test_a_blocked_resolver_collects_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = Blocked(monkeypatch)
    resolve = ThreadResolver(timeout_s=0.01, max_threads=1, max_late=1)
    for host in ("a", "a", "b", "a", "c"):
        with pytest.raises(TimeoutError):
            await resolve(host)
    assert sorted(blocked.calls) == ["a", "b"]
    with pytest.raises(TimeoutError, match="2 look-ups of other names hang"):
        await resolve("c")
    under_way = list(resolve._under_way.values())
    blocked.release.set()
    assert await asyncio.gather(*under_way) == [["10.0.0.1"]] * 2
    assert resolve._under_way == {}
    assert await resolve("c") == ["10.0.0.1"]


async def test_more_names_than_threads_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 names at once: each is answered, by 8 threads at a time."""
    at_work = most = 0
    lock = threading.Lock()

    def look_up(host: str) -> list[str]:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.002)
        with lock:
            at_work -= 1
        return [host.replace("model-", "10.0.0.")]

    monkeypatch.setattr(dns, "blocking_look_up", look_up)
    resolve = ThreadResolver()
    answers = await asyncio.gather(*(resolve(f"model-{number}") for number in range(30)))
    assert answers == [[f"10.0.0.{number}"] for number in range(30)]
    assert most <= dns.MAX_THREADS


async def test_names_that_hang_do_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def look_up(host: str) -> list[str]:
        if host.startswith("dead"):
            release.wait(10)
        return ["10.0.0.1"]

    monkeypatch.setattr(dns, "blocking_look_up", look_up)
    resolve = ThreadResolver(timeout_s=0.25, max_threads=2)
    hosts = [*(f"dead-{number}" for number in range(6)), *(f"good-{number}" for number in range(6))]
    answers = await asyncio.gather(*map(resolve, hosts), return_exceptions=True)
    assert [type(answer) for answer in answers[:6]] == [TimeoutError] * 6
    assert answers[6:] == [["10.0.0.1"]] * 6
    release.set()
    await asyncio.gather(*resolve._under_way.values())


async def test_a_look_up_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(host: str) -> list[str]:
        raise OSError("Name or service not known")

    monkeypatch.setattr(dns, "blocking_look_up", fail)
    with pytest.raises(OSError, match="not known"):
        await ThreadResolver()("nowhere")


def info(ip: str) -> tuple[int, int, int, str, tuple[str, int]]:
    return (0, 1, 6, "", (ip, 0))


def test_addresses_come_once_each_and_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [info("fd00::1"), info("10.0.0.10"), info("10.0.0.9"), info("10.0.0.10")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: answer)
    assert blocking_look_up("model") == ["10.0.0.9", "10.0.0.10", "fd00::1"]


def test_localhost_is_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: [info("::1"), info("127.0.0.1")])
    assert blocking_look_up("localhost") == ["127.0.0.1"]
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: [info("::1")])
    assert blocking_look_up("localhost") == ["::1"]


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many turns of the loop lie between the two; a task that lost it would hold up the stop for ever."""
    for n_turns in range(6):
        blocked = Blocked(monkeypatch)
        resolve = ThreadResolver(timeout_s=60.0)
        asking = asyncio.get_running_loop().create_task(_forever(resolve))
        await asyncio.sleep(0)
        (under_way,) = resolve._under_way.values()
        blocked.release.set()
        await under_way
        for _ in range(n_turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking], timeout=0.05)
        assert asking.cancelled(), f"{n_turns} turns after the answer"


async def _forever(resolve: ThreadResolver) -> None:
    """As the rounds of a name do."""
    await resolve("a")
    await asyncio.Event().wait()
