"""252 predictions asked by `requests` spread over three gunicorns as the strategy of the pool says."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.build import ROOT
from tests.support.daemon import LbProxy
from tests.support.servers import FLOWERS, Gunicorn, in_threads, session
from tests.support.waiting import wait_until

REQUESTS = 252
CLIENTS = 4
SERVERS = 3
STRATEGIES: dict[str, object] = {
    "round_robin": "round_robin",
    "weighted_round_robin": "weighted_round_robin",
    "least_connections": "least_connections",
    "ip_hash": "ip_hash",
    "random": "random",
    "power_of_two": "power_of_two",
    "by_user": {"python": f"{ROOT}/docs/examples/sticky_by_user.py:StickyByUser"},
}
RAISES = """
class Raises:
    def __init__(self, options, rng):
        self.wrong = bool(options.get("wrong"))

    def rebuild(self, servers):
        pass

    def pick(self, eligible, ctx, now):
        if self.wrong:
            return "no server at all"
        raise RuntimeError("no idea whom to take")
"""


def config(servers: list[Gunicorn], strategies: dict[str, object]) -> dict[str, object]:
    def members(name: str) -> list[object]:
        weights = (5, 1, 1) if name == "weighted_round_robin" else (1, 1, 1)
        return [{"address": s.address, "weight": w} for s, w in zip(servers, weights, strict=True)]

    return {
        "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in strategies],
        "pools": {
            name: {"strategy": strategy, "servers": members(name), "health_check": "/health"}
            for name, strategy in strategies.items()
        },
    }


@pytest.fixture(scope="module")
def lb(demo_servers: list[Gunicorn], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    with LbProxy(config(demo_servers, STRATEGIES), tmp_path_factory.mktemp("strategies")) as daemon:
        yield daemon


def ask(lb: LbProxy, listener: str, count: int, *, source: str = "", user: str = "") -> list[int]:
    """The pids that answered `count` predictions of one client, in order; each answer is right."""
    pids = []
    with session(source) as client:
        for _ in range(count):
            headers = {"X-User-Id": user} if user else {}
            answer = client.post(
                f"http://127.0.0.1:{lb.port(listener)}/predict", json=FLOWERS, headers=headers, timeout=60
            )
            assert answer.status_code == 200, answer.text
            told = answer.json()
            assert [one["class"] for one in told["predictions"]] == ["setosa", "virginica"]
            pids.append(int(told["pid"]))
    return pids


def spread(lb: LbProxy, listener: str, clients: int = CLIENTS, total: int = REQUESTS) -> list[int]:
    """How many of 252 predictions each server answered, most first, as told by the answers and by the metrics."""
    pids: list[int] = []
    in_threads(clients, lambda _: pids.extend(ask(lb, listener, total // clients)))
    counts = [count for _, count in Counter(pids).most_common()]
    assert sum(counts) == total
    counted = wait_until(lambda: answered(lb, listener, total), f"{total} answers in the metrics")
    assert counted == counts + [0] * (SERVERS - len(counts))
    return counts


def answered(lb: LbProxy, pool: str, total: int) -> list[float]:
    """The 2xx of each server, most first, once there are `total`."""
    wanted = {("pool", pool), ("code", "2xx")}
    counts = [value for (_, labels), value in lb.metrics("server_requests_total").items() if wanted <= labels]
    return sorted(counts, reverse=True) if sum(counts) >= total else []


def test_round_robin_is_exactly_even(lb: LbProxy) -> None:
    assert spread(lb, "round_robin") == [84, 84, 84]


def test_weights_of_5_1_1_are_kept_exactly(lb: LbProxy) -> None:
    assert spread(lb, "weighted_round_robin") == [180, 36, 36]


def test_least_connections_of_one_client_is_even(lb: LbProxy) -> None:
    """Nothing is in flight when a request comes, so everybody is equal and takes turns."""
    assert spread(lb, "least_connections", clients=1) == [84, 84, 84]


def test_least_connections_of_several_clients_is_about_even(lb: LbProxy) -> None:
    """A server that the machine gives less CPU gets less: that is the strategy's purpose, hence no tighter bound."""
    pids: list[int] = []
    in_threads(CLIENTS, lambda _: pids.extend(ask(lb, "least_connections", REQUESTS // CLIENTS)))
    counts = Counter(pids)
    assert len(counts) == SERVERS
    assert min(counts.values()) > REQUESTS / SERVERS / 3, counts


def test_random_is_within_five_standard_deviations(lb: LbProxy) -> None:
    counts = spread(lb, "random")
    deviation = math.sqrt(REQUESTS * (1 / SERVERS) * (1 - 1 / SERVERS))
    assert len(counts) == SERVERS
    assert all(abs(count - REQUESTS / SERVERS) < 5 * deviation for count in counts), counts
    pids = ask(lb, "random", 60)
    assert any(one == other for one, other in itertools.pairwise(pids)), "chance does not take turns (1 in 10^10)"


def test_power_of_two_is_about_even(lb: LbProxy) -> None:
    counts = spread(lb, "power_of_two", clients=1)
    assert len(counts) == SERVERS
    assert all(abs(count - REQUESTS / SERVERS) < 45 for count in counts), counts


def homes(lb: LbProxy, addresses: list[str]) -> dict[str, int]:
    """The one server of each client address, asked several times over several connections."""
    found = {}
    for source in addresses:
        pids = set(ask(lb, "ip_hash", 2, source=source) + ask(lb, "ip_hash", 1, source=source))
        assert len(pids) == 1, f"{source} met {len(pids)} servers"
        found[source] = pids.pop()
    return found


def test_ip_hash_keeps_a_client_at_its_server(demo_servers: list[Gunicorn], tmp_path: Path) -> None:
    addresses = [f"127.0.0.{number}" for number in range(2, 42)]
    settings = config(demo_servers, {"ip_hash": "ip_hash"})
    with LbProxy(settings, tmp_path / "before") as lb:
        assert len(spread(lb, "ip_hash", total=100)) == 1
        before = homes(lb, addresses)
    counts = Counter(before.values())
    assert len(counts) == SERVERS
    assert max(counts.values()) <= 30, f"40 clients are spread {counts}"
    settings["pools"]["ip_hash"]["servers"].reverse()  # type: ignore[index]
    with LbProxy(settings, tmp_path / "after") as lb:
        assert homes(lb, addresses) == before, "a restart moved clients"


def test_the_example_of_the_docs_keeps_a_user_at_a_server(lb: LbProxy) -> None:
    users = [f"user-{number}" for number in range(50)]
    homes: dict[str, set[int]] = {}

    def client(number: int) -> None:
        for user in users[number::CLIENTS]:
            homes[user] = set(ask(lb, "by_user", 5, user=user))

    in_threads(CLIENTS, client)
    assert [user for user, pids in homes.items() if len(pids) != 1] == []
    assert len(set.union(*homes.values())) == SERVERS


@pytest.mark.parametrize("wrong", [False, True], ids=["raises", "returns nonsense"])
def test_a_plug_in_that_fails_costs_no_request(demo_servers: list[Gunicorn], tmp_path: Path, wrong: bool) -> None:
    (tmp_path / "lb").mkdir()
    (tmp_path / "lb" / "raises.py").write_text(RAISES)
    settings = config(demo_servers, {"failing": {"python": "raises.py:Raises", "wrong": wrong}})
    lb = LbProxy(settings, tmp_path / "lb").start()
    try:
        counts = spread(lb, "failing", total=120)
        assert len(counts) == SERVERS and min(counts) > 12, counts
        assert lb.metric("strategy_errors_total", pool="failing") == 120
        assert lb.metric("requests_total", code="2xx") == 120
        wait_until(lambda: "the strategy failed, least connections picks instead" in lb.stderr, "the log to say it")
        assert len(lb.error_lines()) < 10, "a line for every request"
        lb.stop(allow_errors=True)
    finally:
        lb.kill()
