from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.domain.strategies.helpers import CTX, build, make_servers, picks, shares


def test_everybody_in_turn_whatever_the_weights() -> None:
    servers = make_servers([9, 1, 3])
    assert picks(build("round_robin", servers), servers, 7) == "abcabca"


def test_share_of_a_missing_server_goes_to_all_and_not_to_its_neighbour() -> None:
    a, _b, c, d = servers = make_servers([1, 1, 1, 1])
    strategy = build("round_robin", servers)
    # b is missing from every second pick, as when it is full now and then.
    names = [strategy.pick(eligible, CTX, 0.0).name for _ in range(300) for eligible in (servers, (a, c, d))]
    counts = [names.count(name) for name in "abcd"]
    assert max(counts) - min(counts) <= 1


def test_server_that_returns_is_picked_once_and_does_not_catch_up() -> None:
    servers = make_servers([1, 1, 1])
    strategy = build("round_robin", servers)
    picks(strategy, servers[:2], 100)
    assert picks(strategy, servers, 6) == "cabcab"


def test_order_goes_on_when_a_member_leaves() -> None:
    servers = make_servers([1, 1, 1])
    strategy = build("round_robin", servers)
    assert picks(strategy, servers, 1) == "a"
    rest = (servers[0], servers[2])
    strategy.rebuild(rest)
    assert picks(strategy, rest, 4) == "caca"


def test_new_member_is_next() -> None:
    servers = make_servers([1, 1, 1])
    strategy = build("round_robin", servers[:2])
    assert picks(strategy, servers[:2], 3) == "aba"
    strategy.rebuild(servers)
    assert picks(strategy, servers, 4) == "cbac"


@given(st.integers(1, 6), st.lists(st.sets(st.integers(0, 5), min_size=1), max_size=30), st.integers(1, 5))
def test_even_after_any_history(n: int, history: list[set[int]], rounds: int) -> None:
    servers = make_servers([1] * n)
    strategy = build("round_robin", servers)
    for subset in history:
        strategy.pick([servers[i] for i in sorted(subset) if i < n] or servers, CTX, 0.0)
    counts = shares(strategy, servers, rounds * n)
    assert set(counts.values()) == {rounds}
    assert len(counts) == n
