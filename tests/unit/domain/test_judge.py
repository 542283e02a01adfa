"""What an end says about its server. More of it, with requests that follow: test_pool_slots.py, test_outliers.py."""

from __future__ import annotations

import random

import pytest

from lbproxy.address import Address
from lbproxy.domain.books import Books
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.judge import Judge
from lbproxy.domain.lease import Lease, Lessor, Outcome
from lbproxy.domain.members import Members
from lbproxy.domain.picker import Picker
from lbproxy.domain.server import PENALTY_S, Server
from lbproxy.domain.states import REFUSED, Breaker, Health
from lbproxy.domain.strategies import create


class Bench:
    """Four servers, of which half may be out."""

    def __init__(self, policy: BreakerPolicy | None = None, max_ejected: float = 0.5) -> None:
        rng = random.Random(1)
        picker = Picker(create("least_connections", {}, rng), create("random", {}, rng), print)
        self.servers = [Server(name, Address("10.0.0.1", ord(name)), max_inflight=2) for name in "abcd"]
        self.members = Members(self.servers, picker, fail_open=None, passive_retry_s=None, slow_start_s=0.0)
        self.judge = Judge(self.members, policy, max_ejected=max_ejected, is_hashing=False)
        self.lessor = Lessor(Books())

    def end(self, server: Server, outcome: Outcome, now: float, *, penalty_s: float = 0.0) -> None:
        lease = Lease(self.lessor, server, now)
        self.judge.settle(lease, outcome, now, penalty_s, 0.0, "resets", 0)

    @property
    def out(self) -> str:
        return "".join(server.name for server in self.members.out)


def test_failures_eject_no_more_than_can_be_spared() -> None:
    bench = Bench(BreakerPolicy(failures=2))
    for server in bench.servers:
        for _ in range(2):
            bench.end(server, Outcome.FAILURE, 1.0)
    assert bench.out == "ab" and bench.judge.most_ejected == 2
    assert bench.servers[0].why == "2 consecutive resets"


def test_when_the_pool_shrinks_the_longest_ejected_comes_back() -> None:
    bench = Bench(BreakerPolicy(failures=1))
    for server in bench.servers[:2]:
        bench.end(server, Outcome.FAILURE, 1.0)
    bench.members.leave(bench.servers[3])
    bench.judge.membership_changed(2.0)
    assert bench.out == "b" and bench.servers[0].breaker is Breaker.CLOSED


def test_time_turns_an_ejection_into_a_probe() -> None:
    bench = Bench(BreakerPolicy(failures=1, open_s=10.0))
    a = bench.servers[0]
    bench.end(a, Outcome.FAILURE, 1.0)
    bench.judge.sweep(10.9)
    assert a.shown == "ejected"
    bench.judge.sweep(11.0)
    assert a.shown == "probing"


def test_one_that_went_down_while_it_was_out_is_down_for_the_newer_reason() -> None:
    bench = Bench(BreakerPolicy(failures=1, open_s=10.0))
    a = bench.servers[0]
    bench.end(a, Outcome.FAILURE, 1.0)
    bench.members.set_health(a, Health.DOWN, REFUSED, "connection refused", 5.0)
    bench.judge.sweep(11.0)
    assert (a.shown, a.why) == ("down", "connection refused")


@pytest.mark.parametrize(
    ("outcome", "penalty_s", "errors", "left_s"),
    [
        (Outcome.FAILURE, 0.0, 1, PENALTY_S),
        (Outcome.FAILURE, 9.0, 1, 9.0),
        (Outcome.PUSH_BACK, 0.0, 0, PENALTY_S),
        (Outcome.PUSH_BACK, 9.0, 0, 9.0),
        (Outcome.BAD_ANSWER, 0.0, 1, PENALTY_S),
        (Outcome.ERROR, 0.0, 0, 0.0),
        (Outcome.ABORTED, 0.0, 0, 0.0),
        (Outcome.NEUTRAL, 0.0, 0, 0.0),
    ],
)
def test_without_a_breaker_there_are_penalties_still(
    outcome: Outcome, penalty_s: float, errors: int, left_s: float
) -> None:
    bench = Bench()
    a = bench.servers[0]
    bench.end(a, outcome, 100.0, penalty_s=penalty_s)
    assert (a.errors, a.penalty_s(100.0), a.circuit) == (errors, left_s, None)


def test_a_request_that_was_given_up_quarantines_its_slot_until_time_is_over() -> None:
    bench = Bench()
    a = bench.servers[0]
    lease = Lease(bench.lessor, a, 1.0)
    bench.judge.settle(lease, Outcome.ABORTED, 2.0, 0.0, 5.0, "failures", 0)
    assert a.free_limit == 1
    bench.judge.sweep(6.9)
    assert a.free_limit == 1
    bench.judge.sweep(7.1)
    assert a.free_limit == 2
