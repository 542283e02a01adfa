"""What is foreseen comes, and looking ahead changes nothing: against the pool itself, in any state."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.foresight import DRAWS, foresee, twin_of
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.domain.strategies import NAMES, create
from lbproxy.domain.strategies.base import PickContext, Strategy
from lbproxy.domain.strategies.round_robin import RoundRobin

BY_CHANCE = ("random", "power_of_two", "peak_ewma")
CERTAIN = tuple(name for name in NAMES if name not in BY_CHANCE)
CTX = PickContext("192.0.2.1")


def pool_of(strategy: str | Strategy, n: int = 3, *, max_inflight: int = 0, queue: int = 8) -> Pool:
    rng = random.Random(1)
    servers = [Server(f"s{i}", Address("10.0.0.1", 5000 + i), max_inflight=max_inflight) for i in range(n)]
    made = create(strategy, {}, rng) if isinstance(strategy, str) else strategy
    pool = Pool(
        "p",
        servers,
        made,
        create("least_connections", {}, rng),
        queue=WaitQueue(queue),
        breaker=BreakerPolicy(failures=1, open_s=1.0),
    )
    for server in servers:
        pool.set_health(server, Health.UP, "", "", 0.0)
    return pool


def looked_ahead(pool: Pool, now: float = 0.0, times: int = 1) -> list[str]:
    found = None
    for _ in range(times):
        found = foresee(pool, PickContext("192.0.2.1"), now, random.Random(2))
    assert found is not None
    return [server.name for server, _ in found.shares] or [str(found.refusal)]


def taken(pool: Pool, now: float = 0.0) -> tuple[str, Lease | None]:
    lease = pool.acquire(PickContext("192.0.2.1"), (), now)
    return (str(lease), None) if isinstance(lease, Refusal) else (lease.server.name, lease)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "give", "fail", "health", "admin", "weight"]), st.integers(0, 9)
    ),
    max_size=40,
)


def step(pool: Pool, out: list[Lease], what: str, number: int, now: float) -> str:
    """One thing that happens to a pool; what came of it."""
    server = pool.servers[number % len(pool.servers)]
    if what == "take":
        name, lease = taken(pool, now)
        if lease is not None:
            out.append(lease)
        return name
    if what in ("give", "fail") and out:
        out.pop(number % len(out)).release(Outcome.SUCCESS if what == "give" else Outcome.FAILURE, now)
    elif what == "health":
        pool.set_health(server, Health.DOWN if number > 4 else Health.UP, "checks", "", now)
    elif what == "admin":
        pool.set_admin(server, Admin.DRAIN if number > 6 else Admin.READY, "", now)
    elif what == "weight":
        pool.set_weight(server, number % 4, now)
    pool.sweep(now)
    return ""


@pytest.mark.parametrize("name", NAMES)
@given(steps=STEPS, limit=st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_what_is_foreseen_comes_and_nothing_changes_by_it(name: str, steps: list[tuple[str, int]], limit: int) -> None:
    seen, unseen = pool_of(name, max_inflight=limit), pool_of(name, max_inflight=limit)
    outs: tuple[list[Lease], list[Lease]] = ([], [])
    for turn, (what, number) in enumerate(steps):
        now = turn * 0.4
        for pool in (seen, unseen):
            pool.eligible()  # the one thing that a look settles, as every status does
        expected = looked_ahead(seen, now)
        came = step(seen, outs[0], what, number, now)
        assert step(unseen, outs[1], what, number, now) == came
        if what == "take":
            assert came in expected
            if name in CERTAIN:
                assert len(expected) == 1


@pytest.mark.parametrize("name", CERTAIN)
def test_asking_again_and_again_names_the_same_server(name: str) -> None:
    pool = pool_of(name)
    for _ in range(6):
        expected = looked_ahead(pool, times=5)
        assert [taken(pool)[0]] == expected


def test_shares_are_those_of_the_weights() -> None:
    pool = pool_of("random", 2)
    pool.set_weight(pool.servers[0], 3, 0.0)
    found = foresee(pool, CTX, 0.0, random.Random(3))
    assert found.shares[0][0] is pool.servers[0]
    assert found.shares[0][1] == pytest.approx(0.75, abs=0.07)
    assert sum(share for _, share in found.shares) == pytest.approx(1.0)


def test_a_large_pool_is_asked_less_often() -> None:
    class Counting:
        hash_on = ""
        twins = 0

        def rebuild(self, servers: Sequence[Server]) -> None:
            pass

        def twin(self, rng: Rng) -> Counting:
            type(self).twins += 1
            made = Counting()
            made.rng = rng
            return made

        rng: Rng

        def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
            return eligible[int(self.rng.random() * len(eligible))]

    foresee(pool_of(Counting(), 10), CTX, 0.0, random.Random(1))
    assert Counting.twins == DRAWS
    Counting.twins = 0
    foresee(pool_of(Counting(), 1000), CTX, 0.0, random.Random(1))
    assert Counting.twins == 40


def test_a_full_pool_refuses_and_an_empty_one_too() -> None:
    pool = pool_of("least_connections", 1, max_inflight=1)
    assert taken(pool)[0] == "s0"
    assert foresee(pool, CTX, 0.0, random.Random(1)).refusal is Refusal.FULL
    pool.set_admin(pool.servers[0], Admin.DRAIN, "", 0.0)
    assert foresee(pool, CTX, 0.0, random.Random(1)).refusal is Refusal.NO_SERVER


def test_a_probe_is_foreseen_and_not_begun() -> None:
    pool = pool_of("round_robin")
    name, lease = taken(pool)
    assert lease is not None
    lease.release(Outcome.FAILURE, 0.0)
    pool.sweep(5.0)
    for _ in range(3):
        found = foresee(pool, CTX, 5.0, random.Random(1))
        assert (found.is_probe, [server.name for server, _ in found.shares]) == (True, [name])
    assert taken(pool, 5.0)[0] == name
    assert not foresee(pool, CTX, 5.0, random.Random(1)).is_probe


class Derived(RoundRobin):
    """Of another kind than what it derives from."""

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        return eligible[-1]


class OwnTwin(Derived):
    """Copies itself."""

    def twin(self, rng: Rng) -> OwnTwin:
        return OwnTwin({}, rng)


class SameTwin(Derived):
    """Its copy is itself, which would move on."""

    def twin(self, rng: Rng) -> SameTwin:
        return self


class BrokenTwin(Derived):
    """Its copy does not pick."""

    def twin(self, rng: Rng) -> Derived:
        raise ZeroDivisionError("twin")


class StrangeTwin(Derived):
    """Its copy picks somebody else's server."""

    def twin(self, rng: Rng) -> Strange:
        return Strange({}, rng)


class Strange(RoundRobin):
    """Picks a server that nobody offered."""

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        return Server("stranger", Address("10.0.0.9", 1))


@pytest.mark.parametrize("strategy", [Derived, SameTwin])
def test_without_a_copy_the_choice_is_not_known(strategy: type[Derived]) -> None:
    pool = pool_of(strategy({}, random.Random(1)))
    found = foresee(pool, CTX, 0.0, random.Random(1))
    assert found.unknown == "the strategy's own choice is not known in advance"
    assert [share for _, share in found.shares] == [0.0] * 3
    for server in pool.servers[:2]:
        pool.set_admin(server, Admin.DRAIN, "", 0.0)
    only = foresee(pool, CTX, 0.0, random.Random(1))
    assert (only.unknown, only.shares) == ("", ((pool.servers[2], 1.0),))


def test_a_strategy_of_ones_own_may_copy_itself() -> None:
    pool = pool_of(OwnTwin({}, random.Random(1)))
    assert foresee(pool, CTX, 0.0, random.Random(1)).shares == ((pool.servers[2], 1.0),)


@pytest.mark.parametrize("strategy", [BrokenTwin, StrangeTwin])
def test_a_copy_that_fails_is_told_and_not_passed_on(strategy: type[Derived]) -> None:
    found = foresee(pool_of(strategy({}, random.Random(1))), CTX, 0.0, random.Random(1))
    assert found.unknown.startswith("a copy of the strategy failed (")
    assert len(found.shares) == 3


@pytest.mark.parametrize("name", NAMES)
def test_each_strategy_copies_itself(name: str) -> None:
    strategy = create(name, {}, random.Random(1))
    twin = twin_of(strategy, random.Random(1))
    assert type(twin) is type(strategy)
    assert twin is not strategy


def test_the_shared_source_of_chance_is_left_alone() -> None:
    rng = random.Random(7)
    strategy = create("random", {}, rng)
    pool = pool_of(strategy)
    before = rng.getstate()
    foresee(pool, CTX, 0.0, random.Random(1))
    assert rng.getstate() == before
