from __future__ import annotations

import pytest

from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.slow_start import SlowStart


def make(n: int = 1, max_inflight: int = 10) -> list[Server]:
    return [Server(f"s{i}", Address("10.0.0.1", 5001 + i), max_inflight=max_inflight) for i in range(n)]


def test_ramp_is_linear_with_a_floor() -> None:
    (server,) = make()
    slow_start = SlowStart(10.0)
    slow_start.left(server, 0.0)
    assert slow_start.came_back(server, 5.0, 4)
    seen = []
    for now in (5.0, 5.9, 8.0, 12.5, 14.9):
        assert not slow_start.step(now)
        seen.append((round(server.effective_weight, 9), server.limit))
    assert seen == [(0.1, 1), (0.1, 1), (0.3, 3), (0.75, 8), (0.99, 10)]
    assert slow_start.step(15.0)
    assert (server.effective_weight, server.limit) == (1, 10)
    assert not slow_start.step(16.0)


def test_a_limit_of_1_stays_1() -> None:
    (server,) = make(max_inflight=1)
    slow_start = SlowStart(10.0)
    slow_start.left(server, 0.0)
    slow_start.came_back(server, 5.0, 4)
    assert server.limit == 1


def test_a_change_of_weight_or_limit_during_the_ramp_is_ramped_too() -> None:
    (server,) = make()
    slow_start = SlowStart(10.0)
    slow_start.left(server, 0.0)
    slow_start.came_back(server, 5.0, 4)
    slow_start.step(10.0)
    server.weight, server.max_inflight = 4, 20
    assert (server.effective_weight, server.limit) == (2.0, 10)


def test_who_falls_again_starts_again() -> None:
    (server,) = make()
    slow_start = SlowStart(10.0)
    slow_start.left(server, 0.0)
    slow_start.came_back(server, 5.0, 4)
    slow_start.step(14.0)
    slow_start.left(server, 14.0)
    assert slow_start.came_back(server, 16.0, 4)
    assert server.effective_weight == 0.1


def test_who_leaves_the_pool_keeps_no_ramp() -> None:
    (server,) = make()
    slow_start = SlowStart(10.0)
    slow_start.left(server, 0.0)
    slow_start.came_back(server, 5.0, 4)
    slow_start.forget(server)
    assert (server.effective_weight, server.limit) == (1, 10)
    assert not slow_start.step(100.0)


@pytest.mark.parametrize(
    ("window_s", "away_s", "n", "ramps"),
    [(10.0, 1.0, 2, True), (10.0, 0.9, 2, False), (10.0, 60.0, 1, False), (0.0, 60.0, 2, False)],
)
def test_when_there_is_none(window_s: float, away_s: float, n: int, ramps: bool) -> None:
    (server,) = make()
    slow_start = SlowStart(window_s)
    slow_start.left(server, 0.0)
    assert slow_start.came_back(server, away_s, n) is ramps


def test_who_was_never_away_is_not_ramped() -> None:
    (server,) = make()
    assert not SlowStart(10.0).came_back(server, 100.0, 4)
