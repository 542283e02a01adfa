from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.domain.strategies.helpers import CTX, build, make_servers, picks, shares

WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def test_golden_sequence_of_nginx() -> None:
    servers = make_servers([5, 1, 1])
    assert picks(build("weighted_round_robin", servers), servers, 14) == "aabacaa" * 2


def test_equal_weights_are_plain_round_robin() -> None:
    servers = make_servers([3, 3, 3])
    assert picks(build("weighted_round_robin", servers), servers, 6) == "abcabc"


def test_weight_0_is_never_picked_while_others_exist() -> None:
    servers = make_servers([0, 2, 1])
    assert shares(build("weighted_round_robin", servers), servers, 30) == {"b": 20, "c": 10}


def test_server_drained_with_credit_left_is_not_picked() -> None:
    servers = make_servers([1, 3])
    strategy = build("weighted_round_robin", servers)
    assert picks(strategy, servers, 1) == "b"  # a has credit 1 now
    servers[0].weight = 0
    strategy.rebuild(servers)
    assert picks(strategy, servers, 5) == "bbbbb"


def test_all_drained_share_evenly() -> None:
    servers = make_servers([0, 0])
    assert picks(build("weighted_round_robin", servers), servers, 4) == "abab"


def test_rebuild_keeps_credit_of_members_and_forgets_who_left() -> None:
    servers = make_servers([5, 1, 1])
    strategy = build("weighted_round_robin", servers)
    assert picks(strategy, servers, 3) == "aab"
    strategy.rebuild(servers)
    assert picks(strategy, servers, 4) == "acaa"  # the golden sequence goes on

    assert picks(strategy, servers, 1) == "a"  # b and c have credit 1 each, a has -2
    strategy.rebuild(servers[:1])
    strategy.rebuild(servers)
    assert picks(strategy, servers, 7) == picks_by_hand([-2, 0, 0], [5, 1, 1], 7)
    assert picks_by_hand([-2, 0, 0], [5, 1, 1], 7) != picks_by_hand([-2, 1, 1], [5, 1, 1], 7)  # it shows


def picks_by_hand(credit: list[int], weights: list[int], n: int) -> str:
    """The scheme as nginx describes it: grow all, take the maximum, subtract the total."""
    names = ""
    for _ in range(n):
        credit = [c + w for c, w in zip(credit, weights, strict=True)]
        best = credit.index(max(credit))
        credit[best] -= sum(weights)
        names += "abcdef"[best]
    return names


@given(WEIGHTS, st.integers(1, 60))
def test_agrees_with_the_scheme_written_out(weights: list[int], n: int) -> None:
    servers = make_servers(weights)
    assert picks(build("weighted_round_robin", servers), servers, n) == picks_by_hand([0] * len(weights), weights, n)


@given(WEIGHTS)
def test_every_cycle_is_exact(weights: list[int]) -> None:
    servers = make_servers(weights)
    strategy = build("weighted_round_robin", servers)
    for _ in range(2):
        assert shares(strategy, servers, sum(weights)) == dict(zip("abcdef", weights, strict=False))


@given(WEIGHTS, st.lists(st.sets(st.integers(0, 5), min_size=1), max_size=40))
def test_history_of_missing_servers_leaves_a_bounded_debt(weights: list[int], history: list[set[int]]) -> None:
    servers = make_servers(weights)
    strategy = build("weighted_round_robin", servers)
    for subset in history:
        strategy.pick([servers[i] for i in sorted(subset) if i < len(servers)] or servers, CTX, 0.0)
    cycles = 20
    counts = shares(strategy, servers, cycles * sum(weights))
    for server in servers:
        assert abs(counts[server.name] - cycles * server.weight) <= 2 * len(servers)
