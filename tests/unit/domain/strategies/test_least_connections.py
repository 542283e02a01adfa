from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.server import Server
from tests.unit.domain.strategies.helpers import CTX, build, make_servers, picks, shares

LOADED = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), min_size=1, max_size=8)


def test_fewest_in_flight() -> None:
    servers = make_servers([1, 1, 1], inflight=[2, 1, 3])
    assert picks(build("least_connections", servers), servers, 3) == "bbb"


def test_fewest_for_the_weight() -> None:
    servers = make_servers([4, 1], inflight=[3, 1])
    strategy = build("least_connections", servers)
    assert picks(strategy, servers, 2) == "aa"
    servers[0].inflight = 5
    assert picks(strategy, servers, 2) == "bb"


def test_ties_take_turns() -> None:
    servers = make_servers([1, 1, 1], inflight=[1, 1, 1])
    assert picks(build("least_connections", servers), servers, 6) == "abcabc"


def test_idle_servers_share_by_weight() -> None:
    servers = make_servers([5, 1, 1])
    strategy = build("least_connections", servers)
    assert shares(strategy, servers, 70) == {"a": 50, "b": 10, "c": 10}


def test_full_pool_fills_in_proportion_to_weights() -> None:
    servers = make_servers([4, 2, 1])
    strategy = build("least_connections", servers)
    for _ in range(70):
        strategy.pick(servers, CTX, 0.0).inflight += 1
    assert [server.inflight for server in servers] == [40, 20, 10]


def test_server_that_was_away_does_not_catch_up() -> None:
    servers = make_servers([1, 1])
    strategy = build("least_connections", servers)
    picks(strategy, servers[:1], 1000)
    assert picks(strategy, servers, 6) == "bababa"


def test_new_member_takes_its_turn_and_no_more() -> None:
    servers = make_servers([1, 1, 1])
    strategy = build("least_connections", servers[:2])
    picks(strategy, servers[:2], 1000)
    strategy.rebuild(servers)
    assert shares(strategy, servers, 30) == {"a": 10, "b": 10, "c": 10}


def test_weight_0_is_never_picked_while_others_exist() -> None:
    servers = make_servers([0, 1, 2], inflight=[0, 8, 8])
    strategy = build("least_connections", servers)
    assert shares(strategy, servers, 10) == {"c": 10}
    assert picks(strategy, servers[:1], 2) == "aa"


@given(LOADED, st.integers(0, 20))
def test_nobody_eligible_beats_the_chosen_one(spec: list[tuple[int, int]], warm_up: int) -> None:
    servers = make_servers([w for w, _ in spec], inflight=[n for _, n in spec])
    strategy = build("least_connections", servers)
    for _ in range(warm_up):
        strategy.pick(servers, CTX, 0.0)
    chosen = strategy.pick(servers, CTX, 0.0)
    assert load(chosen) == min(map(load, servers))


@given(st.lists(st.integers(1, 3), min_size=2, max_size=6))
def test_ties_starve_nobody(weights: list[int]) -> None:
    servers = make_servers(weights)
    counts = shares(build("least_connections", servers), servers, 6 * sum(weights))
    for server in servers:
        assert abs(counts[server.name] - 6 * server.weight) <= 1


def load(server: Server) -> float:
    return server.inflight / server.weight
