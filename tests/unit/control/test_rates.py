import random

import pytest

from lbproxy.address import parse_address
from lbproxy.control.metrics import Registry
from lbproxy.control.rates import COLUMNS, POINTS, Meter, difference, quantile
from lbproxy.control.status import Json
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.telemetry.slots import DURATION_BUCKETS, POOL, SERVER, TRAFFIC, Row, Slots, observe
from tests.support.tickets import CallingTicket

UNIX_S = 1_800_000_000.0
DURATION = POOL.offset["request_duration_seconds"]
TTFB = SERVER.offset["upstream_ttfb_seconds"]


class Bench:
    """A pool `p` of servers with counters; requests are counted by hand."""

    def __init__(self, *names: str, max_inflight: int = 0) -> None:
        strategy = LeastConnections({}, random.Random(1))
        servers = [
            Server(name, parse_address(f"127.0.0.1:{5001 + number}"), max_inflight=max_inflight)
            for number, name in enumerate(names)
        ]
        self.pool = Pool("p", servers, strategy, strategy, queue=WaitQueue())
        self.pools = {"p": self.pool}
        self.registry = Registry("1.2.3", self.pools)
        slots = Slots()
        self.row = slots.allocate(POOL)
        self.traffic = slots.allocate(TRAFFIC)
        self.registry.add(POOL, ("p",), self.row)
        self.registry.add(TRAFFIC, ("in", "p"), self.traffic)
        self.servers: dict[str, Row] = {}
        for server in servers:
            self.servers[server.name] = slots.allocate(SERVER)
            self.registry.add(SERVER, ("p", server.name), self.servers[server.name])
        self.meter = Meter(self.registry)
        self.now = 100.0

    def answered(self, count: int, took_s: float, *, code: str = "2xx", by: str = "a") -> None:
        server = next(server for server in self.pool.servers if server.name == by)
        for _ in range(count):
            observe(self.row, DURATION, DURATION_BUCKETS, took_s)
            observe(self.servers[by], TTFB, DURATION_BUCKETS, took_s)
            self.traffic[TRAFFIC.column("requests_total", "POST", code)] += 1
            self.servers[by][SERVER.column("server_requests_total", code)] += 1
            server.requests += 1

    def pass_time(self, seconds: float, *, is_watched: bool = False) -> None:
        self.now += seconds
        self.meter.tick(self.now, UNIX_S + self.now, is_watched=is_watched)

    def rates(self) -> Json:
        return self.meter.rates(self.now, UNIX_S + self.now)

    def of_pool(self, name: str = "p") -> Json:
        pools = self.rates()["pools"]
        assert isinstance(pools, dict)
        found: Json = pools[name]
        return found

    def of_server(self, key: str) -> Json:
        servers = self.rates()["servers"]
        assert isinstance(servers, dict)
        found: Json = servers[key]
        return found

    def history(self, name: str = "p") -> dict[str, list[float | None]]:
        found = self.meter.history()[name]
        assert isinstance(found, dict)
        return found


def cells_of(*values: float) -> list[int]:
    row = [0] * (len(DURATION_BUCKETS) + 2)
    for value in values:
        observe(row, 0, DURATION_BUCKETS, value)
    return row[:-1]


def test_a_quantile_lies_in_the_bucket_of_its_rank() -> None:
    cells = cells_of(*[0.02] * 50, *[0.2] * 49, 20.0)
    assert quantile(0.25, cells) == pytest.approx(0.01 + 0.015 / 2)
    assert quantile(0.5, cells) == pytest.approx(0.025)
    assert quantile(0.99, cells) == pytest.approx(0.25)
    assert quantile(0.999, cells) == pytest.approx(10.0 + 20.0 * 0.9)


def test_no_values_have_no_quantile_and_the_last_bucket_its_lower_bound() -> None:
    assert quantile(0.5, cells_of()) is None
    assert quantile(0.5, ()) is None
    assert quantile(0.5, cells_of(1000.0)) == DURATION_BUCKETS[-1]


def test_a_difference_starts_anew_with_what_it_counts() -> None:
    assert difference([5, 7], [2, 7]) == [3, 0]
    assert difference([5, 7], None) == [5, 7]
    assert difference([1, 0], [2, 0]) == [1, 0], "another row under the same name"


def test_rates_are_of_the_time_since_the_last_call() -> None:
    bench = Bench("a", "b")
    bench.pass_time(0.0)
    bench.answered(9, 0.02)
    bench.answered(1, 0.02, code="5xx", by="b")
    bench.now += 2.0
    first = bench.of_pool()
    assert (first["rps"], first["errors"], first["error_ratio"]) == (5.0, 0.5, 0.1)
    bench.answered(3, 0.02)
    bench.now += 1.0
    second = bench.of_pool()
    assert (second["rps"], second["errors"], second["error_ratio"]) == (3.0, 0.0, 0.0)
    bench.now += 1.0
    assert bench.of_pool()["rps"] == 0.0
    assert bench.rates()["t"] == UNIX_S + bench.now


def test_an_answer_that_broke_off_is_an_error_though_its_status_was_200() -> None:
    bench = Bench("a")
    bench.pass_time(0.0)
    bench.answered(4, 0.02)
    bench.servers["a"][SERVER.column("upstream_errors_total", "truncated_body")] += 1
    bench.servers["a"][SERVER.column("upstream_errors_total", "connect_refused")] += 1
    bench.now += 1.0
    assert bench.of_pool()["error_ratio"] == 0.25, "a refused connect was tried elsewhere"


def test_a_server_that_goes_takes_no_errors_from_the_others() -> None:
    bench = Bench("a", "b")
    lost = SERVER.column("upstream_errors_total", "truncated_body")
    bench.servers["a"][lost] = 10
    bench.pass_time(0.0)
    bench.servers["b"][lost] += 1
    bench.answered(2, 0.02, by="b")
    bench.pool.remove(bench.pool.servers[0])
    bench.now += 1.0
    rates = bench.of_pool()
    assert (rates["errors"], rates["error_ratio"]) == (1.0, 0.5)


def test_quantiles_are_of_the_last_minute() -> None:
    bench = Bench("a")
    bench.pass_time(0.0)
    bench.answered(100, 5.0)
    for _ in range(14):
        bench.pass_time(5.0, is_watched=True)
    bench.answered(100, 0.02)
    bench.now += 1.0
    rates = bench.of_pool()
    assert rates["p50"] == pytest.approx(0.0175)
    assert rates["p999"] == pytest.approx(0.025, rel=0.01), "what took 5 s is more than a minute ago"
    assert bench.of_server("p/a")["ttfb_p50"] == pytest.approx(0.0175)


def test_a_server_that_fails_shows_although_its_requests_were_sent_again() -> None:
    bench = Bench("a", "b")
    bench.pass_time(0.0)
    bench.rates()
    server = bench.pool.servers[0]
    server.requests += 8
    server.errors += 2
    bench.now += 2.0
    rates = bench.rates()["servers"]
    assert isinstance(rates, dict)
    assert rates["p/a"] == {"rps": 4.0, "error_ratio": 0.25, "ttfb_p50": None}
    assert rates["p/b"] == {"rps": 0.0, "error_ratio": 0.0, "ttfb_p50": None}


def test_an_error_of_a_server_counts_once() -> None:
    bench = Bench("a")
    bench.pass_time(0.0)
    bench.rates()
    bench.answered(4, 0.02, code="5xx")
    bench.pool.servers[0].errors += 4
    bench.answered(4, 0.02)
    bench.now += 1.0
    assert bench.of_server("p/a")["error_ratio"] == 0.5


def test_saturation_is_work_over_slots_and_none_without_a_limit() -> None:
    bench = Bench("a", "b", max_inflight=4)
    bench.pool.servers[0].inflight = 3
    bench.pool.enqueue(
        CallingTicket(PickContext("192.0.2.1"), lambda lease, now: None, lambda reason: None, enqueued_at=100.0), 100.0
    )
    rates = bench.of_pool()
    assert (rates["saturation"], rates["slots"], rates["inflight"], rates["queue"]) == (0.5, 8, 3, 1)
    bench.pool.servers[0].inflight = 40
    assert bench.of_pool()["saturation"] == 1.0
    unlimited = Bench("a").of_pool()
    assert (unlimited["saturation"], unlimited["slots"]) == (None, None)


def test_the_history_has_a_point_for_every_five_seconds_whoever_looks() -> None:
    bench = Bench("a", max_inflight=2)
    bench.pass_time(0.0)
    bench.answered(9, 0.02)
    bench.answered(1, 0.02, code="5xx")
    for _ in range(8):
        bench.pass_time(0.25)
    assert bench.meter.history() == {}
    for _ in range(12):
        bench.pass_time(0.25)
    bench.pass_time(5.0)
    history = bench.history()
    assert tuple(history) == COLUMNS
    assert history["t"] == [UNIX_S + 105.0, UNIX_S + 110.0]
    assert history["rps"] == [2.0, 0.0]
    assert history["error_ratio"] == [0.1, 0.0]
    assert history["p50"] == [pytest.approx(0.0175), None]
    assert history["p99"] == [pytest.approx(0.02485), None]
    assert (history["saturation"], history["queue"]) == ([0.0, 0.0], [0, 0])


def test_the_history_is_of_ten_minutes_and_of_the_pools_that_there_are() -> None:
    bench = Bench("a")
    for _ in range(POINTS + 50):
        bench.pass_time(5.0)
    history = bench.history()
    assert {len(values) for values in history.values()} == {POINTS}
    assert history["t"][-1] == UNIX_S + bench.now
    bench.pools["q"] = bench.pools.pop("p")
    bench.pass_time(5.0)
    assert list(bench.meter.history()) == ["q"]


def test_whoever_comes_after_a_pause_gets_no_rates_of_before() -> None:
    bench = Bench("a")
    bench.pass_time(0.0)
    bench.rates()
    bench.answered(1000, 0.02)
    bench.pass_time(100.0)
    bench.answered(2, 0.02)
    bench.now += 1.0
    assert bench.of_pool()["rps"] == 2.0
