"""A server that comes back gets a growing share: real processes, killed and started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import LbProxy
from tests.support.e2e_app import EXECUTED
from tests.support.servers import Gunicorn, Load, gunicorns, session
from tests.support.waiting import wait_until

RAMP_S = 6.0
SETTLED_S = 0.5  # after the end of a ramp
ENOUGH = 200  # requests
AWAY_S = 1.2  # who was away for less than a second is not ramped


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gunicorn]]:
    folder = tmp_path_factory.mktemp("ramp")
    with gunicorns(folder, 3, **{EXECUTED: str(folder / "executed")}) as started:
        yield started


def daemon(servers: list[Gunicorn], folder: Path, **pool: object) -> LbProxy:
    check = {"type": "http", "path": "/health", "interval": "200ms", "timeout": "2s"}
    return LbProxy(
        {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [{"address": s.address, "name": f"s{n}"} for n, s in enumerate(servers)],
                    "health_check": check,
                    "slow_start": f"{RAMP_S}s",
                    "retry": {"idempotent": True},
                    **pool,
                }
            },
        },
        folder,
    )


def is_up(lb: LbProxy, server: str) -> bool:
    return lb.metric("server_up", server=server) == 1


def given(lb: LbProxy) -> list[float]:
    """Requests that each server has answered."""
    return [lb.metric("server_requests_total", server=f"s{n}", code="2xx") for n in range(3)]


def die_and_return(lb: LbProxy, server: Gunicorn, name: str) -> float:
    """Kill it, start it after a while; a time at which it was not used again yet, just before it was."""
    server.kill()
    wait_until(lambda: not is_up(lb, name), f"{name} to be out")
    time.sleep(AWAY_S)
    server.start()
    out_at = time.monotonic()
    while True:
        looked_at = time.monotonic()
        if is_up(lb, name):
            return out_at
        out_at = looked_at
        time.sleep(0.01)


def weight_at(began: float) -> float:
    """At most this share of its weight has a server now that was out at `began`."""
    return max(0.1, min(1.0, (time.monotonic() - began) / RAMP_S))


@pytest.mark.slow
def test_its_share_grows_with_its_weight(servers: list[Gunicorn], tmp_path: Path) -> None:
    with daemon(servers, tmp_path, strategy="weighted_round_robin") as lb:
        wait_until(lambda: lb.metric("server_up") == 3, "all servers to be up")
        with Load(lb.port("in"), 6, (0.002,)) as load:
            load.wait_for(50)
            back = die_and_return(lb, servers[0], "s0")
            shares, most = [], []
            for end in (back + RAMP_S / 3, back + RAMP_S + SETTLED_S, time.monotonic()):
                before = given(lb)
                time.sleep(max(0.0, end - time.monotonic()))
                wait_until(lambda: sum(given(lb)) - sum(before) >= ENOUGH, "requests to take shares of")  # noqa: B023
                growth = [now - then for now, then in zip(given(lb), before, strict=True)]
                shares.append(growth[0] / sum(growth))
                most.append(weight_at(back) / (2 + weight_at(back)))
        assert not load.lost
        first, ramp, after = shares
        assert first < most[0] + 0.05, (shares, most)
        assert ramp < after, shares
        assert 0.3 < after < 0.37, shares


@pytest.mark.slow
def test_its_limit_grows_too(servers: list[Gunicorn], tmp_path: Path) -> None:
    """All slots are wanted all the time: the requests at the server are as many as its limit."""
    with daemon(servers, tmp_path, max_inflight=8) as lb:
        wait_until(lambda: lb.metric("server_up") == 3, "all servers to be up")
        stop = threading.Event()

        def hold() -> None:
            with session() as client:
                while not stop.is_set():
                    client.post(f"http://127.0.0.1:{lb.port('in')}/work", json={"id": "x", "seconds": 0.15}, timeout=60)

        threads = [threading.Thread(target=hold) for _ in range(32)]
        for thread in threads:
            thread.start()
        try:
            back = die_and_return(lb, servers[0], "s0")
            seen: list[tuple[float, float]] = []
            while weight_at(back) < 1.0:
                at_work = lb.metric("server_inflight", server="s0")
                seen.append((at_work, 8 * weight_at(back)))
                time.sleep(0.02)
            wait_until(lambda: lb.metric("server_inflight", server="s0") == 8, "all its slots to be taken")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert all(at_work <= 1 + most for at_work, most in seen), seen
        assert any(at_work >= 1 for at_work, _ in seen), seen


def test_nobody_is_ramped_at_the_start(servers: list[Gunicorn], tmp_path: Path) -> None:
    with daemon(servers, tmp_path, strategy="weighted_round_robin") as lb, session() as client:
        for _ in range(30):
            client.post(f"http://127.0.0.1:{lb.port('in')}/work", json={"id": "x"}, timeout=60)
        assert given(lb) == [10, 10, 10]
