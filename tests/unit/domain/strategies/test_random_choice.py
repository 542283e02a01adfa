from __future__ import annotations

import random
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.strategies.random_choice import PowerOfTwo
from tests.unit.domain.strategies.helpers import CTX, build, chi_square, make_servers, picks, shares


class Numbers:
    """A source of chance that gives these numbers and no more."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = list(numbers)

    def random(self) -> float:
        return self._numbers.pop(0)


def test_random_follows_weights() -> None:
    servers = make_servers([3, 2, 1])
    n = 6000
    counts = shares(build("random", servers), servers, n)
    assert chi_square([counts[c] for c in "abc"], [n / 2, n / 3, n / 6]) < 13.8  # 2 degrees of freedom, p = 0.001


def test_random_never_picks_weight_0_while_others_exist() -> None:
    servers = make_servers([0, 1, 0, 2, 0])
    assert set(shares(build("random", servers), servers, 500)) == {"b", "d"}


def test_random_among_drained_servers_is_even() -> None:
    servers = make_servers([0, 0])
    assert set(shares(build("random", servers), servers, 100)) == {"a", "b"}


def test_same_seed_same_picks() -> None:
    servers = make_servers([1, 2, 3])
    for name in ("random", "power_of_two"):
        assert picks(build(name, servers, 7), servers, 50) == picks(build(name, servers, 7), servers, 50)
        assert picks(build(name, servers, 7), servers, 50) != picks(build(name, servers, 8), servers, 50)


def test_pairs_are_different_and_every_pair_is_equally_likely() -> None:
    servers = make_servers([1] * 5)
    strategy = PowerOfTwo({}, random.Random(42))
    counts = dict.fromkeys(permutations(servers, 2), 0)
    n = 20_000
    for _ in range(n):
        counts[strategy._draw_pair(servers, 5)] += 1  # KeyError if both are the same
    assert chi_square(list(counts.values()), [n / 20] * 20) < 43.8  # 19 degrees of freedom, p = 0.001


@given(st.integers(2, 50), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_any_two_numbers_give_two_servers(n: int, one: float, other: float) -> None:
    servers = make_servers([1] * n)
    a, b = PowerOfTwo({}, Numbers(one, other))._draw_pair(servers, n)
    assert a is not b


def test_one_server_draws_nothing() -> None:
    (a,) = servers = make_servers([1])
    strategy = PowerOfTwo({}, Numbers())
    strategy.rebuild(servers)
    assert strategy.pick(servers, CTX, 0.0) is a


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=2, max_size=6), st.data())
def test_the_better_of_the_two_drawn(spec: list[tuple[int, int]], data: st.DataObject) -> None:
    servers = make_servers([w for w, _ in spec], inflight=[n for _, n in spec])
    numbers = data.draw(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2))
    pair = PowerOfTwo({}, Numbers(*numbers))._draw_pair(servers, len(servers))
    strategy = PowerOfTwo({}, Numbers(*numbers))
    strategy.rebuild(servers)
    chosen = strategy.pick(servers, CTX, 0.0)
    assert chosen in pair
    assert chosen.inflight / chosen.weight == min(server.inflight / server.weight for server in pair)


def test_two_servers_are_least_connections() -> None:
    servers = make_servers([1, 1], inflight=[9, 1])
    assert shares(build("power_of_two", servers), servers, 50) == {"b": 50}


def test_tie_goes_to_the_one_picked_less_of_late() -> None:
    servers = make_servers([1, 1])
    assert shares(build("power_of_two", servers), servers, 100) == {"a": 50, "b": 50}


def test_idle_pair_shares_by_weight() -> None:
    servers = make_servers([3, 1])
    counts = shares(build("power_of_two", servers), servers, 400)
    assert abs(counts["a"] - 300) <= 2


def test_picks_of_long_ago_are_forgotten() -> None:
    a, _b = servers = make_servers([1, 1])
    strategy = PowerOfTwo({}, Numbers(0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    strategy.rebuild(servers)
    assert strategy.pick((a,), CTX, 0.0) is a
    assert strategy.pick(servers, CTX, 0.5).name == "b"  # a had its pick in this window
    assert strategy.pick((a,), CTX, 0.6) is a
    assert strategy.pick(servers, CTX, 1.1).name == "b"  # and in the one before
    assert strategy.pick(servers, CTX, 9.0).name == "a"  # all is forgotten: the one drawn first


def test_weight_0_is_never_picked_while_others_exist() -> None:
    servers = make_servers([0, 1, 1], inflight=[0, 7, 7])
    assert set(shares(build("power_of_two", servers), servers, 100)) == {"b", "c"}
