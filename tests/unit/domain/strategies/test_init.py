"""What holds for every strategy, and the registry."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.strategies import NAMES, create
from tests.unit.domain.strategies.helpers import CTX, build, client, make_servers, picks, shares


def test_names_of_this_version() -> None:
    assert NAMES == (
        "round_robin",
        "weighted_round_robin",
        "least_connections",
        "ip_hash",
        "random",
        "power_of_two",
        "peak_ewma",
        "consistent_hash",
        "first",
    )


def test_unknown_name_is_told_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match="no strategy 'least_conections'; did you mean 'least_connections'"):
        create("least_conections", {}, random.Random())
    with pytest.raises(ValueError, match="known: round_robin, "):
        create("zzz", {}, random.Random())


@pytest.mark.parametrize("name", NAMES)
def test_unknown_option_is_told(name: str) -> None:
    with pytest.raises(ValueError, match=f"strategy '{name}' has no option 'wieght'"):
        create(name, {"wieght": 1}, random.Random())


@pytest.mark.parametrize("name", NAMES)
def test_weights_matter_but_for_round_robin(name: str) -> None:
    servers = make_servers([9, 1])
    strategy = build(name, servers)
    names = [strategy.pick(servers, client(number), 0.0).name for number in range(400)]
    follows_weight = names.count("a") > 300
    assert follows_weight is (name != "round_robin")


@pytest.mark.parametrize("name", NAMES)
def test_single_server_is_always_picked(name: str) -> None:
    servers = make_servers([2])
    assert picks(build(name, servers), servers, 20) == "a" * 20


@pytest.mark.parametrize("name", [name for name in NAMES if name != "round_robin"])
def test_weight_0_is_never_picked_while_others_exist(name: str) -> None:
    servers = make_servers([0, 1, 0, 2])
    assert set(shares(build(name, servers), servers, 200)) <= {"b", "d"}


@pytest.mark.simulation
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_always_one_of_the_eligible_through_any_history(name: str, data: st.DataObject) -> None:
    """Members come, go and change weight; servers fill and empty; the eligible are any part of the members."""
    everybody = make_servers([1, 2, 3, 1, 0])
    strategy = create(name, {}, random.Random(1))
    now = 0.0
    for _ in range(data.draw(st.integers(1, 6))):
        members = data.draw(st.lists(st.sampled_from(everybody), min_size=1, unique=True))
        for server in members:
            server.weight = data.draw(st.integers(0, 4))
        strategy.rebuild(members)
        for _ in range(data.draw(st.integers(1, 6))):
            eligible = tuple(data.draw(st.lists(st.sampled_from(members), min_size=1, unique=True)))
            now += data.draw(st.sampled_from([0.0, 0.4, 1.5]))
            chosen = strategy.pick(eligible, CTX, now)
            assert chosen in eligible
            chosen.inflight += data.draw(st.integers(0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_rebuild_without_a_change_changes_nothing(name: str) -> None:
    """A reload or a flapping neighbour must not reset anybody's turn."""
    servers = make_servers([3, 1, 2])
    calm, rebuilt = build(name, servers), build(name, servers)
    expected = picks(calm, servers, 24)
    got = ""
    for _ in range(24):
        rebuilt.rebuild(servers)
        got += picks(rebuilt, servers, 1)
    assert got == expected
