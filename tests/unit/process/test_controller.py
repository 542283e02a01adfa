import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lbproxy.address import Address, parse_address
from lbproxy.config.model import Config
from lbproxy.control.caller import Caller
from lbproxy.control.file_watch import WatchedFiles
from lbproxy.control.metrics import Registry
from lbproxy.control.probe import ProbeSpec, Result
from lbproxy.control.splits import SplitPlace
from lbproxy.control.status import Json
from lbproxy.dataplane.tls_settings import PoolTlsSettings
from lbproxy.domain.breaker import BreakerPolicy, CircuitBreaker
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin as Wanted
from lbproxy.domain.states import Breaker, Health
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.process.controller import Controller
from lbproxy.telemetry.slots import PROCESS, SERVER, Slots

CONFIG: dict[str, Any] = {
    "admin": {"bind": "off"},
    "listeners": [{"bind": "127.0.0.1:5000", "pool": "predict"}],
    "pools": {"predict": {"servers": ["127.0.0.1:5001", "127.0.0.1:5002"], "health_check": {"interval": 1000}}},
}


async def no_reload(caller: Caller, is_dry: bool) -> tuple[int, Json]:
    raise AssertionError


class Bench:
    """A controller whose clock is moved by hand."""

    def __init__(self, ready: str = "any", kind: str = "", **pool: object) -> None:
        self.now = 100.0
        self.dropped = 0
        self.overload: str | None = None
        slots = Slots()
        strategy = LeastConnections({}, random.Random(1))
        self.pool = Pool("predict", [], strategy, strategy)
        self.pools = {"predict": self.pool}
        self.registry = Registry("1.2.3", self.pools)
        self.watched: list[WatchedFiles] = []
        self.splits: list[SplitPlace] = []
        self.check_tls: dict[str, PoolTlsSettings] = {}
        self.process = slots.allocate(PROCESS)
        self.registry.add(PROCESS, (), self.process)
        for text in ("127.0.0.1:5001", "127.0.0.1:5002"):
            self.pool.add(Server(text, parse_address(text)))
            self.registry.add(SERVER, ("predict", text), slots.allocate(SERVER))
        pools = {"predict": {**CONFIG["pools"]["predict"], **pool, **({"kind": kind} if kind else {})}}
        config = Config.model_validate({**CONFIG, "pools": pools, "admin": {"bind": "off", "ready": ready}})
        self.controller = Controller(
            config,
            self.pools,
            self.registry,
            parts=self,
            reload=no_reload,
            log_dropped=lambda: self.dropped,
            clock=lambda: self.now,
            rng=random.Random(1),
            overloaded=lambda: self.overload,
        )

    def add(self, pool: Pool, server: Server) -> None:
        pool.add(server)

    def remove(self, pool: Pool, server: Server) -> None:
        pool.remove(server)

    def idle_pools(self, now: float) -> list[Pool]:
        return []

    def drop_pool(self, pool: Pool) -> None:
        raise AssertionError(f"pool {pool.name} was not about to go")

    def transitions(self, to: str) -> int:
        row = self.registry.row(SERVER, ("predict", "127.0.0.1:5001"))
        assert row is not None
        return row[SERVER.column("server_transitions_total", to)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.controller.stop()


async def test_readiness_follows_the_life_of_the_process(bench: Bench) -> None:
    controller = bench.controller
    assert controller.ready_reason() == "starting"
    controller.running()
    assert (controller.ready_reason() or "").startswith("pool predict waits for a server to pass its first check")
    bench.pool.set_health(bench.pool.servers[0], Health.UP, "", "", bench.now)
    assert controller.ready_reason() is None
    for server in bench.pool.servers:
        controller.server_refused(bench.pool, server)
    assert (controller.ready_reason() or "").startswith("pool predict has no usable server")
    controller.draining()
    assert controller.ready_reason() == "draining"
    assert controller.status()["state"] == "draining"


async def test_transitions_are_counted_and_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    server = bench.pool.servers[0]
    with caplog.at_level(logging.INFO, "lbproxy"):
        bench.controller.server_refused(bench.pool, server)
        bench.now += 2.0
        bench.pool.set_health(server, Health.UP, "", "answered 200 to GET /", bench.now)
        bench.now += 2.0
        bench.controller.server_refused(bench.pool, server)
    assert (bench.transitions("down"), bench.transitions("up")) == (2, 1)
    assert caplog.messages == [
        "pool predict: server 127.0.0.1:5001 is down, was never up: connection refused under traffic",
        "pool predict: server 127.0.0.1:5001 is up, was down: answered 200 to GET /",
        "pool predict: server 127.0.0.1:5001 is down, was up: connection refused under traffic",
    ]


async def test_flapping_fills_no_log_but_is_counted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    server = bench.pool.servers[0]
    for _ in range(50):
        bench.pool.set_health(server, Health.DOWN, "status", "", bench.now)
        bench.pool.set_health(server, Health.UP, "", "", bench.now)
        bench.now += 0.01
    assert bench.transitions("down") == 50
    assert len(caplog.messages) <= 2


async def test_the_last_server_leaving_is_a_warning(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for server in bench.pool.servers:
        bench.controller.server_refused(bench.pool, server)
    assert caplog.messages[-1] == "pool predict has no usable server"


async def test_a_late_tick_is_measured(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.controller.start()
    bench.now += 0.25 + 4.0
    bench.controller._tick()
    first = PROCESS.offset["loop_lag_seconds"]
    cells = bench.process[first : first + PROCESS.families[-1].width]
    assert sum(cells[:-1]) == 1
    assert cells[-1] == 4_000_000_000
    assert "4.0 s late" in caplog.text


async def test_lost_log_lines_are_counted_and_reported(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.controller.start()
    bench.dropped = 7
    bench.controller._tick()
    bench.controller._tick()
    assert bench.process[PROCESS.column("log_dropped_total")] == 7
    assert caplog.text.count("lost lines (7 so far)") == 1


async def test_failing_open_is_announced_once_each_way(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.controller.start()
    caplog.set_level(logging.INFO, "lbproxy")
    for server in bench.pool.servers:
        bench.pool.set_health(server, Health.UP, "", "", bench.now)
        bench.pool.set_health(server, Health.DOWN, "timeout", "no answer", bench.now)
    for _ in range(3):
        bench.controller._tick()
    bench.pool.set_health(bench.pool.servers[0], Health.UP, "", "", bench.now)
    bench.controller._tick()
    assert [text for text in caplog.messages if "fail" in text] == [
        "pool predict fails open: too few servers pass their checks, so all are used",
        "pool predict no longer fails open",
    ]


async def test_a_server_from_discovery_is_checked_and_forgotten(bench: Bench) -> None:
    await bench.controller.start()
    before = len(bench.controller._tasks)
    server = Server("model:1/10.0.0.1", parse_address("10.0.0.1:1"))
    bench.controller._checker._probe = _never
    bench.controller.add(bench.pool, server)
    assert server in bench.pool.servers
    assert len(bench.controller._tasks) == before + 1
    bench.controller.remove(bench.pool, server)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert server not in bench.pool.servers
    assert len(bench.controller._tasks) == before


async def _never(spec: ProbeSpec, address: Address) -> Result:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_registry_without_process_counters_is_refused() -> None:
    with pytest.raises(ValueError, match="PROCESS"):
        Controller(Config.model_validate(CONFIG), {}, Registry("1"), parts=Bench(), reload=no_reload)


async def test_a_process_that_takes_no_requests_for_now_is_not_ready(bench: Bench) -> None:
    bench.controller.running()
    bench.pool.set_health(bench.pool.servers[0], Health.UP, "", "", bench.now)
    bench.overload = "overloaded: 250 MiB"
    assert bench.controller.ready_reason() == "overloaded: 250 MiB"
    bench.overload = None
    assert bench.controller.ready_reason() is None


async def test_the_status_says_the_kind_of_a_pool_and_what_it_sets() -> None:
    bench = Bench(kind="uvicorn")
    pools = bench.controller.status()["pools"]
    assert isinstance(pools, list)
    [pool] = pools
    assert (pool["kind"], pool["kind_settings"]) == ("uvicorn", {"keep_alive.idle_timeout": "4s"})
    await bench.controller.stop()


@pytest.mark.parametrize(("sticky", "cookie"), [({"cookie": "lb", "secret": "0123456789abcdef"}, "lb"), ("off", None)])
async def test_the_status_says_by_which_cookie_clients_stick(sticky: object, cookie: str | None) -> None:
    bench = Bench(sticky=sticky)
    pools = bench.controller.status()["pools"]
    assert isinstance(pools, list)
    assert [pool["sticky"] for pool in pools] == [cookie]
    await bench.controller.stop()


def told(bench: Bench) -> list[tuple[str, str]]:
    """Kind and text of the events."""
    events = [json.loads(event.text) for event in bench.controller.events.after(0)]
    return [(event["kind"], event["text"]) for event in events]


async def test_flips_and_ejections_are_events(bench: Bench) -> None:
    server = bench.pool.servers[0]
    bench.controller.server_refused(bench.pool, server)
    server.circuit = CircuitBreaker(BreakerPolicy())
    server.circuit.reason, server.circuit.what = "consecutive_failures", "5 consecutive resets"
    bench.controller._flips.flipped(bench.pool, server, "up", "ejected")
    name = "pool predict: server 127.0.0.1:5001"
    assert told(bench) == [
        ("flip", f"{name} is down, was never up: connection refused under traffic"),
        ("ejection", f"{name} is ejected, was never up: 5 consecutive resets"),
    ]


async def test_an_ejected_server_that_is_made_ready_is_logged_with_the_reason_of_its_ejection(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    server = bench.pool.servers[0]
    server.circuit = CircuitBreaker(BreakerPolicy())
    server.circuit.eject("consecutive_failures", bench.now, "resets")
    server.breaker = Breaker.EJECTED
    bench.pool.set_admin(server, Wanted.DRAIN, "drained by ci", bench.now)
    with caplog.at_level(logging.INFO, "lbproxy"):
        bench.pool.set_admin(server, Wanted.READY, "", bench.now)
    assert caplog.messages[0].endswith("is ejected, was drain: 0 consecutive resets")


async def test_servers_of_a_name_that_come_and_go_are_events(bench: Bench) -> None:
    named = Server("app:80/192.0.2.1", parse_address("192.0.2.1:80"), host="app")
    live = Server("b", parse_address("192.0.2.2:80"))
    for server in (named, live):
        bench.controller.add(bench.pool, server)
        bench.controller.remove(bench.pool, server)
    assert told(bench) == [
        ("names", "pool predict: server app:80/192.0.2.1 joins"),
        ("names", "pool predict: server app:80/192.0.2.1 is gone"),
    ]


async def test_readiness_and_the_end_are_events(bench: Bench) -> None:
    await bench.controller.start()
    bench.controller._tick()
    assert told(bench) == []
    bench.controller.running()
    bench.pool.set_health(bench.pool.servers[0], Health.UP, "", "", bench.now)
    bench.controller._tick()
    bench.controller.draining()
    bench.controller._tick()
    assert told(bench) == [
        ("process", "ready"),
        ("process", "lbproxy stops: what is in flight is finished"),
    ]
