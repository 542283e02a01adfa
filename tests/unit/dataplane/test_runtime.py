"""What is decided once: header edits, trust, limits."""

from __future__ import annotations

import random

import pytest

from lbproxy.dataplane.runtime import Edits, KeepAliveSettings, ListenerRuntime, RouteRuntime
from lbproxy.domain.retry import RetryPolicy
from lbproxy.telemetry.slots import TRAFFIC, Slots
from tests.support.fake_transport import CONFIG, FakeLb

INF = float("inf")


def test_set_replaces_add_appends_remove_deletes_whatever_the_case() -> None:
    edits = Edits(set=((b"X-A", b"1"),), add=((b"X-B", b"2"),), remove=frozenset((b"x-c",)))
    fields = [(b"x-a", b"old"), (b"X-B", b"old"), (b"X-C", b"old"), (b"X-a", b"old"), (b"X-D", b"old")]
    assert edits.apply(fields) == [(b"X-B", b"old"), (b"X-D", b"old"), (b"X-A", b"1"), (b"X-B", b"2")]
    assert edits.touched == {b"x-a", b"x-c"}
    assert fields[0] == (b"x-a", b"old") and not edits.is_empty


def test_no_edits_change_nothing() -> None:
    assert Edits().is_empty and Edits().apply([(b"A", b"1")]) == [(b"A", b"1")]


@pytest.mark.parametrize(
    ("pool", "route", "sent"),
    [
        (Edits(set=((b"X", b"pool"),)), Edits(set=((b"x", b"route"),)), [(b"x", b"route")]),
        (Edits(set=((b"X", b"pool"),)), Edits(remove=frozenset((b"x",))), []),
        (Edits(remove=frozenset((b"x",))), Edits(set=((b"X", b"route"),)), [(b"X", b"route")]),
        (Edits(add=((b"X", b"pool"),)), Edits(remove=frozenset((b"x",))), []),
        (Edits(add=((b"X", b"1"),)), Edits(add=((b"X", b"2"),)), [(b"X", b"got"), (b"X", b"1"), (b"X", b"2")]),
        (Edits(), Edits(), [(b"X", b"got")]),
    ],
)
def test_a_route_s_edits_follow_the_pool_s(pool: Edits, route: Edits, sent: list[tuple[bytes, bytes]]) -> None:
    assert pool.then(route).apply([(b"X", b"got")]) == sent


def runtime(*networks: str) -> ListenerRuntime:
    with FakeLb(f"trusted_proxies: {list(networks)}\n{CONFIG}") as lb:
        return lb.listener.runtime


def test_unix_is_trusted_where_it_is_named() -> None:
    assert runtime("unix").is_trusted("unix") and runtime("10.0.0.0/8", "unix").is_trusted("10.1.2.3")
    assert not runtime("unix").is_trusted("") and not runtime("unix").is_trusted("10.1.2.3")


@pytest.mark.parametrize(
    ("ip", "is_trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("2001:db8::1", True),
        ("2001:db8::1%eth0", True),
        ("2001:db9::1", False),
        ("unix", False),
        ("", False),
        ("10.1.2.3:80", False),
    ],
)
def test_who_is_trusted(ip: str, is_trusted: bool) -> None:
    assert ListenerRuntime.is_trusted(runtime("10.0.0.0/8", "2001:db8::/32"), ip) is is_trusted
    assert not ListenerRuntime.is_trusted(runtime(), ip)


@pytest.mark.parametrize(
    ("requests", "age", "is_limited"), [(INF, INF, False), (5, INF, True), (INF, 5.0, True), (5, 5.0, True)]
)
def test_is_there_a_bound_on_a_connection(requests: float, age: float, is_limited: bool) -> None:
    assert KeepAliveSettings(1, 1.0, requests, age).is_limited is is_limited


def test_retries_are_allowed_by_the_requests_of_servers_that_have_left_too() -> None:
    with FakeLb(CONFIG) as lb:
        pool = next(iter(lb.wiring.pools.values()))
        leaving, staying = list(pool.servers)[:2]
        leaving.requests, staying.requests, pool.budget.n_started = 1000, 100, 400
        pool.budget.note(0, 0.0)
        pool.sweep(1.0)
        del pool.servers[leaving]
        pool.sweep(2.0)
        # A fifth of 700, less what these themselves are of it: none of them gets to a server here.
        assert sum(pool.may_retry(3.0, is_lost=True) for _ in range(300)) == 117


def test_a_route_knows_whether_it_edits_answers() -> None:
    traffic = Slots().allocate(TRAFFIC)
    assert not RouteRuntime(None, traffic, RetryPolicy(), None).edits_responses
    edits = Edits(add=((b"A", b"b"),))
    assert RouteRuntime(None, traffic, RetryPolicy(), None, response_edits=edits).edits_responses
    assert not RouteRuntime(None, traffic, RetryPolicy(), None, request_edits=edits).edits_responses


def test_connections_that_were_opened_together_do_not_end_together() -> None:
    rng = random.Random(1)
    limits = [KeepAliveSettings(1, 1.0, 1000, 100.0).limits_of_one(rng) for _ in range(200)]
    assert all(900 <= requests <= 1000 and 90.0 <= age <= 100.0 for requests, age in limits)
    assert len({requests for requests, _ in limits}) > 50
    assert max(age for _, age in limits) - min(age for _, age in limits) > 8.0


def test_a_connection_may_have_one_request_and_no_limit() -> None:
    rng = random.Random(1)
    assert KeepAliveSettings(1, 1.0, 1, INF).limits_of_one(rng) == (1, INF)
    assert KeepAliveSettings(1, 1.0, INF, 10.0).limits_of_one(rng)[0] == INF
    assert {KeepAliveSettings(1, 1.0, 5, INF).limits_of_one(rng)[0] for _ in range(50)} == {5}
