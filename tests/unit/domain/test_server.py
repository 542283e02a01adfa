"""The truth table of a server's states, and its latency."""

from __future__ import annotations

from itertools import product
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.server import LATENCY_TAU_S, Server
from lbproxy.domain.states import Admin, Breaker, Health


def make(weight: int = 1, max_inflight: int = 0) -> Server:
    return Server("a", Address("10.0.0.1", 1), weight=weight, max_inflight=max_inflight)


# The table of the module's preface, first match wins; "*" is any.
TABLE = [
    ("maint", "*", "*", "maint", False),
    ("drain", "*", "*", "drain", False),
    ("ready", "ejected", "*", "ejected", False),
    ("ready", "*", "down", "down", False),
    ("ready", "probing", "*", "probing", False),
    ("ready", "closed", "busy", "busy", True),
    ("ready", "closed", "up", "up", True),
    ("ready", "closed", "unknown", "up", True),
]


@pytest.mark.parametrize(("admin", "breaker", "health"), list(product(Admin, Breaker, Health)))
def test_shown_state_and_usability_follow_the_table(admin: Admin, breaker: Breaker, health: Health) -> None:
    server = make()
    server.admin, server.breaker, server.health = admin, breaker, health
    row = next(
        row
        for row in TABLE
        if all(
            want in ("*", have) for want, have in zip(row[:3], (admin.value, breaker.value, health.value), strict=True)
        )
    )
    assert (server.shown, server.is_usable) == row[3:]


def test_weight_zero_takes_nothing_but_is_not_down() -> None:
    server = make(weight=0)
    assert not server.is_usable and server.shown == "up"


def test_the_limit_is_as_configured_and_zero_is_no_limit() -> None:
    limited, unlimited = make(max_inflight=2), make()
    assert (limited.limit, limited.free_limit) == (2, 2)
    assert unlimited.limit == unlimited.free_limit > 10**9


def test_latency_rises_at_once_and_decays() -> None:
    server = make()
    assert server.latency(5.0) == 0.0
    server.observe_latency(0.1, 10.0)
    assert server.latency(10.0) == 0.1
    server.observe_latency(0.9, 10.0)
    assert server.latency(10.0) == 0.9
    assert server.latency(10.0 + LATENCY_TAU_S) == pytest.approx(0.9 / exp(1))
    assert server.latency(9.0) == 0.9  # a clock that a caller read a moment earlier


def test_faster_answers_pull_the_average_down_with_the_time_constant() -> None:
    server = make()
    server.observe_latency(1.0, 0.0)
    server.observe_latency(0.0, LATENCY_TAU_S)
    assert server.latency(LATENCY_TAU_S) == pytest.approx(exp(-1))


@pytest.mark.parametrize(
    ("seen", "latency_s", "at"),
    [
        ([], 0.0, 0.0),
        ([(0.0, 0.0), (0.5, 7.0)], 0.5, 7.0),
        ([(0.5, 7.0), (0.2, 7.0)], 0.5, 7.0),
        ([(9.0, 7.0), (0.2, 7.0 + 10 * LATENCY_TAU_S)], 0.2, 7.0 + 10 * LATENCY_TAU_S),
        ([(0.8, 7.0), (0.2, 7.0 + LATENCY_TAU_S)], 0.8 / exp(1), 7.0 + LATENCY_TAU_S),
    ],
)
def test_latencies_of_several_processes_are_one(seen: list[tuple[float, float]], latency_s: float, at: float) -> None:
    server = make()
    server.take_latencies(seen)
    assert server.latency_s == pytest.approx(latency_s)
    assert server.latency_at == at


@given(st.lists(st.tuples(st.floats(0.0001, 10.0), st.floats(0.0, 30.0)), min_size=1, max_size=30))
def test_latency_stays_between_the_extremes(samples: list[tuple[float, float]]) -> None:
    server = make()
    now = 100.0
    for elapsed, gap in samples:
        now += gap
        server.observe_latency(elapsed, now)
        values = [value for value, _ in samples]
        assert min(values) * 0.999 <= server.latency(now) <= max(values) * 1.001
        assert server.latency(now) >= elapsed * 0.999  # peak-sensitive: never below the newest answer


def test_identity_is_the_address() -> None:
    assert Server("x", Address("::1", 80)).key == "[::1]:80"
    assert Server("x", Address("", 0, "/run/a")).key == "unix:/run/a"
    assert repr(make(max_inflight=3)) == "<Server a up 0/3>"
    assert repr(make()) == "<Server a up 0/inf>"
