"""Who is measurably slower, and who is not."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.speed import ENOUGH, TAU_S, Speeds

STEP_S = 0.25


def make(n: int, max_inflight: int = 4) -> list[Server]:
    return [Server(chr(97 + i), Address("10.0.0.1", 5001 + i), max_inflight=max_inflight) for i in range(n)]


def serve(servers: Sequence[Server], times_s: Sequence[float], count: int = 20) -> None:
    """`count` answers from each server, all after the same time."""
    for server, time_s in zip(servers, times_s, strict=True):
        for _ in range(count):
            server.note_served(time_s)


def names(speeds: Speeds) -> str:
    return "".join(sorted(server.name for server in speeds.slower))


def test_a_server_that_takes_twice_as_long_is_slower() -> None:
    servers, speeds = make(4), Speeds()
    serve(servers, [0.1, 0.1, 0.1, 0.2])
    assert speeds.step(servers, 1.0)
    assert names(speeds) == "d"
    assert not speeds.step(servers, 1.25)  # nothing new


def test_servers_that_differ_a_little_do_not_differ() -> None:
    servers, speeds = make(4), Speeds()
    serve(servers, [0.1, 0.11, 0.12, 0.14])
    assert not speeds.step(servers, 1.0)


def test_few_answers_prove_nothing() -> None:
    servers, speeds = make(2), Speeds()
    serve(servers, [0.1, 0.9], count=int(ENOUGH) - 1)
    assert not speeds.step(servers, 1.0)
    serve(servers, [0.1, 0.9], count=2)
    assert speeds.step(servers, 1.25)


def test_one_very_long_answer_proves_nothing() -> None:
    servers, speeds = make(2), Speeds()
    serve(servers, [0.1, 0.1])
    servers[1].note_served(5.0)
    assert not speeds.step(servers, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_chance_alone_hardly_ever_makes_a_server_slower(seed: int) -> None:
    """Log-normal times with the standard deviation at 1.3 times the mean, as predictions have them."""
    rng = random.Random(seed)
    servers, speeds = make(8), Speeds()
    verdicts = 0
    for step in range(1, 401):
        for server in servers:
            server.note_served(rng.lognormvariate(-2.8, 1.0))
        speeds.step(servers, step * STEP_S)
        verdicts += len(speeds.slower)
    assert verdicts <= 0.02 * 400 * 8


def test_a_verdict_stays_until_the_difference_is_small() -> None:
    servers, speeds = make(2), Speeds()
    serve(servers, [0.1, 0.2], count=100)
    speeds.step(servers, 1.0)
    serve(servers, [0.1, 0.13], count=200)  # the mean is about 1.5 times the other's
    assert not speeds.step(servers, 1.25) and names(speeds) == "b"
    serve(servers, [0.1, 0.1], count=1000)
    assert speeds.step(servers, 1.5) and names(speeds) == ""


def test_a_server_without_requests_is_tried_again_after_a_while() -> None:
    servers, speeds = make(2), Speeds()
    serve(servers, [0.1, 0.4], count=100)
    speeds.step(servers, 1.0)
    now, waited = 1.0, 0.0
    while speeds.slower and waited < 10 * TAU_S:
        now, waited = now + STEP_S, waited + STEP_S
        serve(servers[:1], [0.1], count=3)
        speeds.step(servers, now)
    assert TAU_S < waited < 4 * TAU_S  # e^-2.3 of 100 is 10


def test_servers_without_a_limit_are_not_judged() -> None:
    servers, speeds = make(2, max_inflight=0), Speeds()
    serve(servers, [0.1, 0.4], count=100)
    assert not speeds.step(servers, 1.0)


def test_weights_are_the_operators_word() -> None:
    servers, speeds = make(2), Speeds()
    servers[0].weight = 4
    serve(servers, [0.1, 0.4], count=100)
    assert not speeds.step(servers, 1.0)
    servers[0].weight = 1
    assert speeds.step(servers, 1.25) and names(speeds) == "b"


def test_a_removed_server_is_forgotten() -> None:
    servers, speeds = make(3), Speeds()
    serve(servers, [0.1, 0.1, 0.4])
    speeds.step(servers, 1.0)
    assert speeds.step(servers[:2], 1.25) and names(speeds) == ""


def test_prefer_leaves_somebody() -> None:
    servers, speeds = make(3), Speeds()
    assert speeds.prefer(servers) == tuple(servers)
    serve(servers, [0.1, 0.1, 0.4])
    speeds.step(servers, 1.0)
    assert speeds.prefer(servers) == tuple(servers[:2])
    assert speeds.prefer(servers[2:]) == (servers[2],)
