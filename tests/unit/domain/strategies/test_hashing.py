from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import hashing
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.hashing import IpHash, client_key, score
from tests.unit.domain.strategies.helpers import build, chi_square, client, make_servers, picks

WEIGHTS = st.lists(st.integers(1, 5), min_size=2, max_size=6)


def test_choice_is_the_same_in_every_process_and_release() -> None:
    """Golden: a change of this word would send most clients of a running site to another server."""
    servers = make_servers([1, 1, 1])
    strategy = build("ip_hash", servers)
    assert "".join(picks(strategy, servers, 1, client(n)) for n in range(16)) == "bcbbaababbbbabba"


def test_hashes_on_the_client_address() -> None:
    assert build("ip_hash", make_servers([1])).hash_on == "client_ip"


def test_key_stands_over_the_address() -> None:
    servers = make_servers([1] * 8)
    strategy = build("ip_hash", servers)
    by_key = {strategy.pick(servers, PickContext(f"10.0.0.{n}", key=b"user-7"), 0.0).name for n in range(50)}
    by_address = {strategy.pick(servers, PickContext(f"10.0.0.{n}"), 0.0).name for n in range(50)}
    assert len(by_key) == 1
    assert len(by_address) == 8


@pytest.mark.parametrize(
    ("one", "other", "is_one_client"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("not:an:address", "not:an:address!", False),
    ],
)
def test_what_is_one_client(one: str, other: str, is_one_client: bool) -> None:
    assert (client_key(one) == client_key(other)) is is_one_client


def test_client_without_address_has_a_server() -> None:
    servers = make_servers([1, 1])
    assert build("ip_hash", servers).pick(servers, PickContext(""), 0.0) in servers


@given(st.sampled_from([0, 1, 2**11, 2**12 - 1, 2**63, 2**64 - 4097, 2**64 - 1]), st.integers(0, 1000))
def test_scores_are_finite_at_the_ends(hash64: int, weight: int) -> None:
    assert 0.0 <= score(hash64, weight) < float("inf")
    assert (score(hash64, weight) == 0.0) == (weight == 0)


@given(WEIGHTS, st.data(), st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=50))
def test_only_the_clients_of_a_lost_server_move(weights: list[int], data: st.DataObject, clients: list[int]) -> None:
    servers = make_servers(weights)
    lost = data.draw(st.sampled_from(servers))
    rest = tuple(server for server in servers if server is not lost)
    strategy = build("ip_hash", servers)
    rebuilt = build("ip_hash", rest)
    for number in clients:
        before = strategy.pick(servers, client(number), 0.0)
        after = strategy.pick(rest, client(number), 0.0)
        assert after is rebuilt.pick(rest, client(number), 0.0)
        if before is not lost:
            assert after is before


@given(WEIGHTS, st.data(), st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=50))
def test_order_of_servers_does_not_matter(weights: list[int], data: st.DataObject, clients: list[int]) -> None:
    servers = make_servers(weights)
    shuffled = data.draw(st.permutations(servers))
    strategy, other = build("ip_hash", servers), build("ip_hash", shuffled)
    for number in clients:
        assert strategy.pick(servers, client(number), 0.0) is other.pick(shuffled, client(number), 0.0)


@given(WEIGHTS, st.data(), st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=50))
def test_more_weight_only_draws_clients_to_that_server(
    weights: list[int], data: st.DataObject, clients: list[int]
) -> None:
    servers = make_servers(weights)
    strategy = build("ip_hash", servers)
    before = [strategy.pick(servers, client(number), 0.0) for number in clients]
    heavier = data.draw(st.sampled_from(servers))
    heavier.weight += 3
    strategy.rebuild(servers)
    for number, old in zip(clients, before, strict=True):
        assert strategy.pick(servers, client(number), 0.0) in (old, heavier)


@given(WEIGHTS, st.integers(0, 2**24 - 1))
def test_the_order_of_falling_back_is_one_whoever_is_missing(weights: list[int], number: int) -> None:
    servers = make_servers(weights)
    strategy = IpHash({}, NoChance())
    strategy.rebuild(servers)

    def ranked(left: Sequence[Server]) -> list[Server]:
        order: list[Server] = []
        while left:
            order.append(strategy.pick(left, client(number), 0.0))
            left = [server for server in left if server is not order[-1]]
        return order

    assert ranked(servers[1:]) == [server for server in ranked(servers) if server is not servers[0]]


def test_shares_follow_weights() -> None:
    servers = make_servers([3, 2, 1])
    strategy = build("ip_hash", servers)
    n = 6000
    counts = Counter(strategy.pick(servers, client(number), 0.0).name for number in range(n))
    assert chi_square([counts[c] for c in "abc"], [n / 2, n / 3, n / 6]) < 13.8  # 2 degrees of freedom, p = 0.001


def test_clients_of_a_lost_server_spread_over_all_others() -> None:
    servers = make_servers([1] * 5)
    strategy = build("ip_hash", servers)
    moved = [number for number in range(6000) if strategy.pick(servers, client(number), 0.0).name == "a"]
    counts = Counter(strategy.pick(servers[1:], client(number), 0.0).name for number in moved)
    assert chi_square([counts[c] for c in "bcde"], [len(moved) / 4] * 4) < 16.3  # 3 degrees of freedom, p = 0.001


def test_weight_0_has_no_clients_while_others_exist() -> None:
    servers = make_servers([0, 1])
    strategy = build("ip_hash", servers)
    assert {strategy.pick(servers, client(number), 0.0).name for number in range(200)} == {"b"}


def test_memo_is_bounded_and_does_not_change_answers() -> None:
    many = range(3 * hashing.MEMO_KEYS)
    servers = make_servers([1] * 4)
    strategy = IpHash({}, NoChance())
    strategy.rebuild(servers)
    first = [strategy.pick(servers, client(number), 0.0) for number in many]
    assert len(strategy._memo) + len(strategy._older_memo) <= 2 * hashing.MEMO_KEYS
    assert [strategy.pick(servers, client(number), 0.0) for number in many] == first


# Of so many clients, most ranks are in the older memo.
@pytest.mark.parametrize("n_clients", [100, hashing.MEMO_KEYS + 100])
def test_rebuild_forgets_old_ranks(n_clients: int) -> None:
    servers = make_servers([1, 1])
    strategy = build("ip_hash", servers)
    old = [strategy.pick(servers, client(number), 0.0) for number in reversed(range(n_clients))]
    joined = (*servers, Server("z", Address("10.0.0.9", 80), weight=100))
    strategy.rebuild(joined)
    new = [strategy.pick(joined, client(number), 0.0) for number in range(n_clients)]
    fresh = build("ip_hash", joined)
    assert new == [fresh.pick(joined, client(number), 0.0) for number in range(n_clients)]
    assert set(old) == set(servers)
    assert new.count(joined[2]) > 0.8 * n_clients


def test_server_that_was_never_announced_is_an_error() -> None:
    a, b = make_servers([1, 1])
    with pytest.raises(LookupError, match="rebuild"):
        build("ip_hash", [a]).pick([b], client(1), 0.0)


class NoChance:
    """Hashing must not draw numbers."""

    def random(self) -> float:
        raise AssertionError("hashing drew a random number")
