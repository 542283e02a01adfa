import asyncio
import logging
import random
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from lbproxy.address import parse_address
from lbproxy.config.model import ServerSpec
from lbproxy.control.discovery import dns
from lbproxy.control.discovery.dns import DnsDiscovery, ThreadResolver, blocking_look_up
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.tasks import Tasks
from lbproxy.telemetry.slots import PROCESS, Slots


class Bench:
    """One pool whose only server is a name, answered by `answer`."""

    def __init__(self, *specs: str, is_checked: bool = True) -> None:
        strategy = LeastConnections({}, random.Random(1))
        self.pool = Pool("predict", [], strategy, strategy)
        self.answer: Sequence[str] | OSError = []
        self.asked: list[str] = []
        self.tasks = Tasks()
        self.row = Slots().allocate(PROCESS)
        self.now = 100.0
        self.discovery = DnsDiscovery(self, self.tasks, self.row, lambda: self.now, self.resolve)
        made = [ServerSpec(address=parse_address(text)) for text in specs or ("model:5001",)]
        self.discovery.add_pool(self.pool, made, 5.0, is_checked=is_checked)

    async def resolve(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    def add(self, pool: Pool, server: Server) -> None:
        pool.add(server)

    def remove(self, pool: Pool, server: Server) -> None:
        pool.remove(server)

    async def refresh(self, *answer: str, host: str = "", error: OSError | None = None) -> list[str]:
        """Another answer, for one host or all; returns the members as `name state`."""
        self.answer = error if error is not None else answer
        for name in self.discovery._names.values():
            if host in ("", name.host):
                await self.discovery._refresh(name)
        return [f"{server.name} {server.shown}" for server in self.pool.servers]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.tasks.cancel_all()


async def test_the_first_answer_makes_servers_that_take_traffic(bench: Bench) -> None:
    assert await bench.refresh("10.0.0.1", "10.0.0.2") == ["model:5001/10.0.0.1 up", "model:5001/10.0.0.2 up"]
    assert [server.health for server in bench.pool.servers] == [Health.UNKNOWN] * 2
    assert [server.key for server in bench.pool.servers] == ["10.0.0.1:5001", "10.0.0.2:5001"]


async def test_a_later_address_is_down_until_its_first_pass(bench: Bench) -> None:
    await bench.refresh("10.0.0.1")
    assert await bench.refresh("10.0.0.1", "10.0.0.2") == ["model:5001/10.0.0.1 up", "model:5001/10.0.0.2 down"]


async def test_without_health_checks_a_later_address_takes_traffic_at_once() -> None:
    bench = Bench(is_checked=False)
    await bench.refresh("10.0.0.1")
    assert await bench.refresh("10.0.0.1", "10.0.0.2") == ["model:5001/10.0.0.1 up", "model:5001/10.0.0.2 up"]


@pytest.mark.parametrize("error", [OSError("NXDOMAIN"), TimeoutError("no answer within 2 s"), None])
async def test_the_last_good_answer_is_kept(bench: Bench, error: OSError | None) -> None:
    await bench.refresh("10.0.0.1")
    assert await bench.refresh(error=error) == ["model:5001/10.0.0.1 up"]
    assert bench.row[PROCESS.column("dns_failures_total")] == 1


async def test_a_look_up_is_logged_when_its_result_changes(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            await bench.refresh(error=OSError(1, "Name or service not known"))
        bench.now += 60.0
        for _ in range(5):
            await bench.refresh(error=OSError(1, "Name or service not known"))
        for _ in range(2):
            await bench.refresh("10.0.0.1")
        bench.now += 60.0
        for _ in range(5):
            await bench.refresh(error=OSError(2, "Temporary failure"))
    assert caplog.messages == [
        "pool predict: looking up model failed: Name or service not known; it has no server yet",
        "pool predict: server model:5001/10.0.0.1 joins",
        "pool predict: model resolves again, to 1 addresses",
        "pool predict: looking up model failed: Temporary failure; the last good answer stays in use",
    ]
    assert bench.row[PROCESS.column("dns_failures_total")] == 15


async def test_a_name_without_an_answer_is_known_to_its_pool() -> None:
    bench = Bench("model:5001", "model:5002", "gone:80", "10.9.9.9:1")
    assert [(name.host, name.servers, name.why) for name in bench.pool.names] == [
        ("model", ("model:5001", "model:5002"), "not looked up yet"),
        ("gone", ("gone:80",), "not looked up yet"),
    ]
    await bench.refresh("10.0.0.1", host="model")
    await bench.refresh(host="gone", error=OSError(1, "Name or service not known"))
    assert [(name.host, name.is_unresolved, name.why, name.n_addresses) for name in bench.pool.names] == [
        ("model", False, "", 1),
        ("gone", True, "Name or service not known", 0),
    ]


async def test_a_removed_address_leaves_when_it_is_drained(bench: Bench) -> None:
    await bench.refresh("10.0.0.1", "10.0.0.2")
    bench.pool.servers[0].inflight = 1
    assert await bench.refresh("10.0.0.2") == ["model:5001/10.0.0.1 drain", "model:5001/10.0.0.2 up"]
    bench.pool.servers[0].inflight = 0
    assert await bench.refresh("10.0.0.2") == ["model:5001/10.0.0.2 up"]


async def test_an_idle_removed_address_leaves_at_once(bench: Bench) -> None:
    await bench.refresh("10.0.0.1", "10.0.0.2")
    assert await bench.refresh("10.0.0.2") == ["model:5001/10.0.0.2 up"]


async def test_an_address_that_comes_back_while_draining_is_ready_again(bench: Bench) -> None:
    await bench.refresh("10.0.0.1", "10.0.0.2")
    server = bench.pool.servers[0]
    server.inflight = 1
    await bench.refresh("10.0.0.2")
    assert server.admin is Admin.DRAIN
    assert await bench.refresh("10.0.0.1", "10.0.0.2") == ["model:5001/10.0.0.1 up", "model:5001/10.0.0.2 up"]
    assert bench.pool.servers[0] is server


async def test_what_an_operator_wants_outlives_the_loss_of_an_address(bench: Bench) -> None:
    await bench.refresh("10.0.0.1", "10.0.0.2")
    server = bench.pool.servers[0]
    server.inflight = 1
    bench.pool.set_admin(server, Admin.MAINT, "", bench.now)
    await bench.refresh("10.0.0.2")
    assert bench.discovery.is_leaving(server) and server.admin is Admin.MAINT
    await bench.refresh("10.0.0.1", "10.0.0.2")
    assert not bench.discovery.is_leaving(server) and server.admin is Admin.MAINT
    assert bench.discovery.host_of(server) == "model"
    assert bench.discovery.host_of(Server("other", parse_address("10.0.0.1:1"))) is None


async def test_a_name_with_several_ports_is_looked_up_once() -> None:
    bench = Bench("model:5001", "model:5002", "10.9.9.9:1")
    members = await bench.refresh("10.0.0.1")
    assert members == ["model:5001/10.0.0.1 up", "model:5002/10.0.0.1 up"]
    assert bench.asked == ["model"]


async def test_an_address_that_is_configured_too_is_one_server(bench: Bench) -> None:
    bench.pool.add(Server("10.0.0.1:5001", parse_address("10.0.0.1:5001")))
    assert await bench.refresh("10.0.0.1", "10.0.0.2") == ["10.0.0.1:5001 up", "model:5001/10.0.0.2 up"]


async def test_an_address_under_two_names_stays_while_one_has_it() -> None:
    """It is one server, however the names are written; drained when the last name has lost it."""
    bench = Bench("blue:80", "Green.:80")
    await bench.refresh("10.0.0.1", host="blue")
    assert await bench.refresh("10.0.0.1", "10.0.0.2", host="Green.") == [
        "blue:80/10.0.0.1 up",
        "Green.:80/10.0.0.2 up",
    ]
    server = bench.pool.servers[0]
    server.inflight = 1
    assert await bench.refresh("10.0.0.3", host="blue") == [
        "blue:80/10.0.0.1 up",
        "Green.:80/10.0.0.2 up",
        "blue:80/10.0.0.3 down",
    ]
    assert server.host == "Green.", "TLS and checks ask for the name that has the address"
    assert (await bench.refresh("10.0.0.2", host="Green."))[0] == "blue:80/10.0.0.1 drain"
    assert (await bench.refresh("10.0.0.2", "10.0.0.1", host="Green."))[0] == "blue:80/10.0.0.1 up"
    server.inflight = 0
    assert await bench.refresh("10.0.0.2", host="Green.") == ["Green.:80/10.0.0.2 up", "blue:80/10.0.0.3 down"]
    assert not bench.discovery._leaving and server not in bench.discovery._holders


async def test_two_names_that_leave_in_either_order_leave_nothing() -> None:
    for first, second in (("blue", "green"), ("green", "blue")):
        bench = Bench("blue:80", "green:80")
        await bench.refresh("10.0.0.1")
        await bench.refresh("10.0.0.2", host=first)
        assert [server.key for server in bench.pool.servers] == ["10.0.0.1:80", "10.0.0.2:80"]
        await bench.refresh("10.0.0.2", host=second)
        assert [server.key for server in bench.pool.servers] == ["10.0.0.2:80"]
        assert len(bench.discovery._holders) == 1


async def test_rounds_are_spread_over_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are not looked up in step: the first round of each has a moment of its own."""
    bench = Bench(*(f"model-{number}:80" for number in range(5)))
    firsts: list[float] = []

    async def follow(name: object, first_s: float) -> None:
        firsts.append(first_s)

    monkeypatch.setattr(bench.discovery, "_follow", follow)
    bench.answer = ["10.0.0.1"]
    await bench.discovery.start()
    await asyncio.sleep(0)
    assert firsts == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0])
    await bench.tasks.cancel_all()


async def test_ipv6_addresses_are_written_in_brackets(bench: Bench) -> None:
    await bench.refresh("fd00::1")
    assert [server.key for server in bench.pool.servers] == ["[fd00::1]:5001"]


async def test_start_survives_a_name_that_does_not_resolve(bench: Bench) -> None:
    bench.answer = OSError("SERVFAIL")
    await bench.discovery.start()
    assert bench.pool.servers == []


async def test_a_failed_connect_wakes_only_the_name_of_that_server(bench: Bench) -> None:
    await bench.refresh("10.0.0.1")
    (name,) = bench.discovery._names.values()
    bench.discovery.kick(bench.pool, Server("other", parse_address("10.0.0.9:1")))
    assert not name.wake.is_set()
    bench.discovery.kick(bench.pool, bench.pool.servers[0])
    assert name.wake.is_set()


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
    resolve = ThreadResolver(timeout_s=0.02, max_threads=2)
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


async def test_a_cancellation_that_comes_with_a_kick_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "MIN_GAP_S", 0.0)
    for n_turns in range(6):
        bench = Bench()
        await bench.refresh("10.0.0.1")
        (name,) = bench.discovery._names.values()
        following = asyncio.get_running_loop().create_task(bench.discovery._follow(name, 1e6))
        for _ in range(5):
            await asyncio.sleep(0)
        bench.discovery.kick(bench.pool, bench.pool.servers[0])
        for _ in range(n_turns):
            await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait([following], timeout=0.05)
        assert following.cancelled(), f"{n_turns} turns after the kick"
