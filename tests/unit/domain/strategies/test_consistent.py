"""The same key, the same server: whoever asks, whoever else comes and goes, and not beyond what a server may have."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.consistent import CHANCE, MOST_RANKED, RANKED, SLOTS, ConsistentHash, mixed, slot_of
from tests.unit.domain.strategies.helpers import chi_square, make_servers

WEIGHTS = st.lists(st.integers(1, 5), min_size=2, max_size=8)
KEYS = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=40)


def hashing(servers: Sequence[Server], **options: object) -> ConsistentHash:
    made = ConsistentHash({"key": "path", **options}, random.Random(1))
    made.rebuild(servers)
    return made


def keyed(key: bytes | int) -> PickContext:
    return PickContext("192.0.2.1", key=key if isinstance(key, bytes) else b"key-%d" % key)


def choice(strategy: ConsistentHash, servers: Sequence[Server], key: bytes | int) -> Server:
    return strategy.pick(servers, keyed(key), 0.0)


def test_choice_is_the_same_in_every_process_and_release() -> None:
    """Golden: a change of this word would empty the caches of a running site."""
    servers = make_servers([1, 1, 1])
    strategy = hashing(servers)
    assert "".join(choice(strategy, servers, n).name for n in range(24)) == GOLDEN
    weighted = make_servers([1, 2, 3])
    assert "".join(choice(hashing(weighted), weighted, n).name for n in range(24)) == GOLDEN_WEIGHTED


GOLDEN = "bbcccacababcccbcbbcacbbc"
GOLDEN_WEIGHTED = "bbcccccababcccbccbcccbbc"


@pytest.mark.parametrize("weights", [[1] * 7, [1, 2, 3, 4, 5, 6, 7], [9, 1, 1, 1, 1, 1, 0]])
def test_replicas_agree_whatever_the_order_and_the_addresses(weights: list[int]) -> None:
    """On the owners of slots, on who comes next, and on whoever is left where some are down."""
    weight_of = {f"pod-{n}": weight for n, weight in enumerate(weights)}
    replicas = []
    for shuffle in range(3):
        order = list(weight_of)
        random.Random(shuffle).shuffle(order)
        servers = [
            Server(name, Address("10.0.0.1", 5000 + shuffle * 100 + n), weight=weight_of[name])
            for n, name in enumerate(order)
        ]
        strategy = hashing(servers)
        owners = [strategy.owner(slot).name for slot in range(0, SLOTS, 13)]
        ranks = [[server.name for server in strategy.ranked(slot)] for slot in range(0, SLOTS, 13 * 8)]
        assert [rank[0] for rank in ranks] == owners[::8]
        rest = tuple(server for server in servers if server.name not in ("pod-0", "pod-6"))
        replicas.append((owners, ranks, [choice(strategy, rest, n).name for n in range(500)]))
    assert replicas[0] == replicas[1] == replicas[2]


@given(WEIGHTS, st.data(), KEYS)
def test_only_the_keys_of_a_lost_server_move(weights: list[int], data: st.DataObject, keys: list[bytes]) -> None:
    servers = make_servers(weights)
    lost = data.draw(st.sampled_from(servers))
    rest = tuple(server for server in servers if server is not lost)
    strategy, rebuilt = hashing(servers), hashing(rest)
    for key in keys:
        before, after = choice(strategy, servers, key), choice(strategy, rest, key)
        assert after is choice(rebuilt, rest, key), "down or gone, it is the same"
        if before is not lost:
            assert after is before


@given(WEIGHTS, st.integers(1, 5), KEYS)
def test_who_joins_takes_keys_and_moves_none_between_others(weights: list[int], weight: int, keys: list[bytes]) -> None:
    more = make_servers([*weights, weight])
    servers, new = more[:-1], more[-1]
    strategy = hashing(servers)
    before = [choice(strategy, servers, key) for key in keys]
    strategy.rebuild(more)
    for key, old in zip(keys, before, strict=True):
        assert choice(strategy, more, key) in (old, new)


@given(WEIGHTS, st.data(), st.integers(1, 9), KEYS)
def test_another_weight_moves_keys_to_or_from_its_server_only(
    weights: list[int], data: st.DataObject, weight: int, keys: list[bytes]
) -> None:
    servers = make_servers(weights)
    changed = data.draw(st.sampled_from(servers))
    strategy = hashing(servers)
    before = [choice(strategy, servers, key) for key in keys]
    grows = weight > changed.weight
    changed.weight = weight
    strategy.rebuild(servers)
    for key, old in zip(keys, before, strict=True):
        after = choice(strategy, servers, key)
        if after is not old:
            assert (after if grows else old) is changed


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 2, 3], [5, 1, 1, 1, 1]])
def test_shares_follow_the_weights(weights: list[int]) -> None:
    servers = make_servers(weights)
    strategy = hashing(servers)
    counts = Counter(strategy.owner(slot).name for slot in range(SLOTS))
    expected = [SLOTS * weight / sum(weights) for weight in weights]
    assert chi_square([counts[server.name] for server in servers], expected) < 30.0


@pytest.mark.parametrize("form", ["user-%d", "%d", "10.0.0.%d", "/v1/models/%d/infer", "00000000-0000-0000-0000-%012d"])
def test_keys_that_are_alike_are_spread(form: str) -> None:
    servers = make_servers([1] * 4)
    strategy = hashing(servers)
    counts = Counter(choice(strategy, servers, (form % n).encode()).name for n in range(4000))
    assert chi_square([counts[server.name] for server in servers], [1000.0] * 4) < 25.0
    assert len({slot_of((form % n).encode()) for n in range(4000)}) > 3700


@given(WEIGHTS, st.sampled_from([1.0, 1.1, 1.25, 2.0]), st.lists(st.integers(0, 5), max_size=120))
def test_nobody_has_more_than_its_bound(weights: list[int], bound: float, keys: list[int]) -> None:
    servers = make_servers(weights)
    strategy = hashing(servers, bounded_load=bound)
    for n, key in enumerate(keys):
        choice(strategy, servers, key).inflight += 1
        for server in servers:
            share = (n + 1) * server.weight / sum(weights)
            assert server.inflight < max(bound * share, share + CHANCE * sqrt(share)) + 1


def test_what_is_too_much_goes_to_the_next_of_the_key_and_comes_back() -> None:
    servers = make_servers([1] * 5)
    strategy = hashing(servers)
    order = []
    rest = list(servers)
    while rest:
        order.append(choice(strategy, tuple(rest), 7))
        rest.remove(order[-1])
    order[0].inflight = 6
    assert choice(strategy, servers, 7) is order[1]
    order[1].inflight = 6
    assert choice(strategy, servers, 7) is order[2]
    order[0].inflight = 0
    assert choice(strategy, servers, 7) is order[0]
    assert (strategy.n_owner, strategy.n_spilled) == (2, 6)


def test_a_full_server_is_passed_over_at_once() -> None:
    servers = make_servers([1] * 3)
    for server in servers:
        server.max_inflight = 2
    strategy = hashing(servers, bounded_load="off")
    owner = choice(strategy, servers, 1)
    owner.inflight = 2
    assert choice(strategy, servers, 1) is not owner
    for server in servers:
        server.inflight = 2
    assert choice(strategy, servers, 1) is owner, "there is nobody with a slot"
    assert strategy.take_counts() == (1, 2, 0)


def test_without_a_bound_one_server_may_have_everything() -> None:
    servers = make_servers([1] * 3)
    strategy = hashing(servers, bounded_load="off")
    owner = choice(strategy, servers, 1)
    owner.inflight = 1000
    assert choice(strategy, servers, 1) is owner


def test_requests_without_a_key_go_by_load() -> None:
    servers = make_servers([1] * 3, [2, 0, 5])
    strategy = hashing(servers)
    assert strategy.pick(servers, PickContext("192.0.2.1"), 0.0) is servers[1]
    assert strategy.take_counts() == (0, 0, 1)
    assert strategy.take_counts() == (0, 0, 0)


def test_without_a_key_in_the_config_it_is_the_client() -> None:
    servers = make_servers([1] * 8)
    strategy = ConsistentHash({}, random.Random(1))
    strategy.rebuild(servers)
    assert strategy.hash_on == "client_ip"
    assert len({strategy.pick(servers, PickContext("192.0.2.1"), 0.0) for _ in range(9)}) == 1
    assert len({strategy.pick(servers, PickContext(f"192.0.2.{n}"), 0.0) for n in range(40)}) == 8


def test_a_ramp_moves_no_key() -> None:
    servers = make_servers([2, 2, 2])
    strategy = hashing(servers)
    before = [choice(strategy, servers, n) for n in range(100)]
    servers[0].set_ramp(0.1)
    strategy.rebuild(servers)
    assert [choice(strategy, servers, n) for n in range(100)] == before


def test_a_server_of_weight_0_has_no_keys() -> None:
    servers = make_servers([1, 0, 1])
    strategy = hashing(servers)
    assert {strategy.owner(slot).name for slot in range(1000)} == {"a", "c"}


def test_picks_only_among_those_it_is_offered_in_a_list_too() -> None:
    servers = make_servers([1] * 4)
    strategy = hashing(servers)
    offered = list(servers)
    for n in range(4):
        owner = choice(strategy, offered, n)
        offered.remove(owner)
        assert choice(strategy, offered, n) is not owner
        offered.append(owner)


def test_a_copy_leaves_it_alone() -> None:
    servers = make_servers([1] * 4)
    strategy = hashing(servers)
    twin = strategy.twin(random.Random(2))
    assert [choice(twin, servers, n) for n in range(50)] == [choice(strategy, servers, n) for n in range(50)]
    assert strategy.n_owner == 50
    nobody = PickContext("192.0.2.1")
    first = strategy.twin(random.Random(2)).pick(servers, nobody, 0.0)
    assert strategy.pick(servers, nobody, 0.0) is first


@given(st.integers(0, 2**32 - 1))
def test_numbers_are_mixed_within_32_bits(number: int) -> None:
    assert 0 <= mixed(number) < 2**32


def test_mixing_loses_nothing() -> None:
    assert len({mixed(n) for n in range(50_000)}) == 50_000


@pytest.mark.parametrize("bound", [0, 0.9, 101, "1.25", True, None])
def test_bounds_that_are_none(bound: object) -> None:
    with pytest.raises(ValueError, match="bounded_load is a number from 1 to 100"):
        ConsistentHash({"bounded_load": bound}, random.Random(1))


@pytest.mark.parametrize(
    ("weights", "total", "bound", "most"),
    [
        ([1] * 4, 1, 1.25, 1),
        ([1] * 4, 4, 1.25, 3),  # 1 + 2 x 1
        ([1] * 4, 16, 1.25, 8),  # 4 + 2 x 2
        ([1] * 4, 16, 3.0, 12),
        ([1] * 4, 1000, 1.25, 313),
        ([1] * 4, 1000, 1.0, 282),  # 250 + 2 x 15.8
        ([4] * 4, 16, 1.25, 8),
        ([1, 3], 48, 1.25, 48),  # of weight 3: 36 + 2 x 6
        ([1, 3], 64, 1.25, 62),  # 48 + 2 x 6.9
    ],
)
def test_how_many_requests_the_owner_of_a_key_may_have(weights: list[int], total: int, bound: float, most: int) -> None:
    """total: in flight together with the request at hand."""
    servers = make_servers(weights)
    strategy = hashing(servers, bounded_load=bound)
    key = next(n for n in range(1000) if strategy.owner(slot_of(b"key-%d" % n)) is servers[-1])
    taken = 0
    for inflight in range(total):
        servers[-1].inflight, servers[0].inflight = inflight, total - 1 - inflight
        if choice(strategy, servers, key) is not servers[-1]:
            break
        taken = inflight + 1
    assert taken == most


@given(WEIGHTS, st.binary(min_size=1), st.data())
@settings(max_examples=20)
def test_the_order_that_is_remembered_is_that_of_all(weights: list[int], key: bytes, data: st.DataObject) -> None:
    """Whoever is full: who gets it is who would if only those with a slot were there."""
    servers = make_servers(weights)
    strategy, fresh = hashing(servers), hashing(servers, bounded_load="off")
    for server in servers:
        server.max_inflight = 1
        server.inflight = data.draw(st.integers(0, 1))
    free = tuple(server for server in servers if not server.inflight)
    if free:
        assert choice(strategy, servers, key) is choice(fresh, free, key)
    assert [server.name for server in strategy.ranked(slot_of(key))] == _order(weights, key)[:RANKED]


def _order(weights: list[int], key: bytes) -> list[str]:
    found = []
    rest = tuple(make_servers(weights))
    while rest:
        found.append(choice(hashing(rest), rest, key))
        rest = tuple(server for server in rest if server is not found[-1])
    return [server.name for server in found]


def test_what_is_remembered_is_bounded() -> None:
    servers = make_servers([1] * 3)
    strategy = hashing(servers)
    for slot in range(2 * MOST_RANKED + 1):
        strategy.ranked(slot)
        assert len(strategy._ranks) <= MOST_RANKED


# --- what it is for ---------------------------------------------------------------------------------------------------


N_ASKED, N_PREFIXES, N_SERVERS, ROOM = 12_000, 100, 4, 30
COMPULSORY = 1 - N_PREFIXES / N_ASKED
"""There is room for all prefixes: one miss for each is what can't be helped."""
N_INFLIGHT = (1, 4, 8, 16, 32, 64)


class Caches:
    """A model: 100 prefixes, 4 servers with room for 30 of them each (the least recently used goes), so many requests
    in flight, which take 1 on average (exponential), 4 where the prefix is not there."""

    def __init__(self, n_inflight: int, seed: int = 7) -> None:
        self._rng = random.Random(seed)
        self._n_inflight = n_inflight
        self.servers = make_servers([1] * N_SERVERS)
        self.held: dict[Server, dict[int, None]] = {server: {} for server in self.servers}

    def hit_rate(self, pick: Callable[[int], Server]) -> float:
        ends: list[tuple[float, int, Server]] = []
        now, hits = 0.0, 0
        for number, prefix in enumerate(self._rng.choices(range(N_PREFIXES), k=N_ASKED)):
            if len(ends) == self._n_inflight:
                now, _, ended = heapq.heappop(ends)
                ended.inflight -= 1
            server = pick(prefix)
            server.inflight += 1
            cache = self.held[server]
            is_hit = prefix in cache
            hits += is_hit
            cache.pop(prefix, None)
            cache[prefix] = None
            if len(cache) > ROOM:
                del cache[next(iter(cache))]
            heapq.heappush(ends, (now + self._rng.expovariate(1.0 if is_hit else 0.25), number, server))
        return hits / N_ASKED

    def by(self, name: str, **options: object) -> float:
        strategy = create(name, options, random.Random(7))
        strategy.rebuild(self.servers)
        return self.hit_rate(lambda prefix: strategy.pick(self.servers, keyed(prefix), 0.0))

    def by_who_sees_the_caches(self, bound: float) -> float:
        """What can be had where nobody may have more than `bound` times the mean, rounded up, whatever the reason: who
        has the prefix is asked, of all who may be; else its owner, or the next."""
        order = hashing(self.servers)

        def pick(prefix: int) -> Server:
            most = ceil(bound * (1 + sum(server.inflight for server in self.servers)) / N_SERVERS - 1e-9)
            within = [server for server in order.ranked(slot_of(b"key-%d" % prefix)) if server.inflight < most]
            return next((server for server in within if prefix in self.held[server]), within[0])

        return self.hit_rate(pick)


@pytest.mark.parametrize("n_inflight", N_INFLIGHT)
def test_prefixes_find_their_cache(n_inflight: int) -> None:
    """docs/strategies.md has the table. Nobody who holds every server to 1.25 times the mean at each moment finds as
    many, though he sees into the caches: with few requests in flight chance alone passes that."""
    by_key = Caches(n_inflight).by("consistent_hash", key="path", bounded_load=1.25)
    by_load = Caches(n_inflight).by("least_connections")
    exact = Caches(n_inflight).by_who_sees_the_caches(1.25)
    assert by_key >= 0.95 * COMPULSORY, by_key
    if n_inflight > 1:
        assert by_key > exact, exact
    assert by_load < 0.35, by_load


@pytest.mark.parametrize("n_inflight", N_INFLIGHT)
def test_hardly_a_key_moves_where_nobody_is_overloaded(n_inflight: int) -> None:
    servers = make_servers([1] * 4)
    strategy = hashing(servers)
    rng = random.Random(3)
    flying: list[Server] = []
    for _ in range(20_000):
        server = choice(strategy, servers, rng.randrange(10_000))
        server.inflight += 1
        flying.append(server)
        if len(flying) >= n_inflight:
            flying.pop(rng.randrange(len(flying))).inflight -= 1
    assert strategy.n_spilled / 20_000 < 0.015


@pytest.mark.parametrize(("n_inflight", "most"), [(8, 5), (64, 24), (1000, 313)])
def test_a_key_that_everybody_wants_does_not_take_a_server_beyond_its_bound(n_inflight: int, most: int) -> None:
    servers = make_servers([1] * 4)
    strategy = hashing(servers)
    for _ in range(n_inflight):
        choice(strategy, servers, 1).inflight += 1
    assert max(server.inflight for server in servers) == most
