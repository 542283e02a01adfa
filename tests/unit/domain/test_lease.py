"""A lease is given back exactly once, and says what its end means."""

from __future__ import annotations

import random

import pytest

from lbproxy.address import Address
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext


def make() -> tuple[Pool, Server]:
    server = Server("a", Address("127.0.0.1", 1))
    rng = random.Random(1)
    return Pool("p", [server], create("round_robin", {}, rng), create("least_connections", {}, rng)), server


@pytest.mark.parametrize("outcome", Outcome)
def test_the_slot_comes_back_whatever_happened(outcome: Outcome) -> None:
    pool, server = make()
    lease = pool.acquire(PickContext("c"), (), 0.0)
    assert isinstance(lease, Lease) and server.inflight == 1
    lease.release(outcome, 1.0)
    assert server.inflight == 0 and server.requests == 1


def test_a_second_release_is_a_defect() -> None:
    pool, _ = make()
    lease = pool.acquire(PickContext("c"), (), 0.0)
    assert isinstance(lease, Lease)
    lease.release(Outcome.SUCCESS, 1.0)
    with pytest.raises(RuntimeError, match="twice"):
        lease.release(Outcome.SUCCESS, 1.0)


def test_only_success_is_progress_and_only_failure_an_error() -> None:
    pool, server = make()
    for outcome, errors, progress in (
        (Outcome.NEUTRAL, 0, float("-inf")),
        (Outcome.FAILURE, 1, float("-inf")),
        (Outcome.SUCCESS, 1, 3.0),
    ):
        lease = pool.acquire(PickContext("c"), (), 2.0)
        assert isinstance(lease, Lease)
        lease.release(outcome, 3.0)
        assert (server.errors, server.progress_at) == (errors, progress)
