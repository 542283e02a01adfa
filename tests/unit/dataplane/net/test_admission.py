"""Who is counted as whom, and whose turn it is."""

from __future__ import annotations

from functools import partial
from math import inf

import pytest

from lbproxy.dataplane.net.admission import AddressCounts, Turns, counted_as
from lbproxy.domain.shared.addresses import N_ADDRESS_CELLS, Addresses
from lbproxy.domain.shared.cells import Guard


@pytest.mark.parametrize(
    ("ip", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:2::", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:3::1", "2001:0db8:0001:0003::/64"),
        ("fe80::1%eth0", "fe80:0000:0000:0000::/64"),
        ("::1", "0000:0000:0000:0000::/64"),
        ("no:address", "no:address"),
    ],
)
def test_an_ipv6_address_is_counted_with_its_network(ip: str, key: str) -> None:
    assert counted_as(ip) == key


def test_connections_over_the_limit_are_told_apart_and_counted() -> None:
    counts = AddressCounts(2)
    assert [counts.enter(f"2001:db8::{number}") for number in range(3)] == [True, True, False]
    assert counts.enter("2001:db8:0:1::1") and counts.enter("192.0.2.1")
    counts.leave("2001:db8::1")
    assert not counts.enter("2001:db8::9")  # the refused one is still connected
    for _ in range(2):
        counts.leave("2001:db8::1")
    assert counts.enter("2001:db8::9")


def test_where_workers_share_them_the_connections_of_all_count() -> None:
    cells = [0] * N_ADDRESS_CELLS
    one, two = (AddressCounts(2, "in", Addresses(cells, 0, worker, Guard())) for worker in range(2))
    other = AddressCounts(2, "other", Addresses(cells, 0, 2, Guard()))
    assert [one.enter("192.0.2.1"), two.enter("192.0.2.1"), one.enter("192.0.2.1")] == [True, True, False]
    assert other.enter("192.0.2.1"), "each listener has its own"
    one.leave("192.0.2.1")
    one.leave("192.0.2.1")
    assert [two.enter("192.0.2.1"), one.enter("192.0.2.1")] == [True, False]


def test_a_limit_that_comes_later_counts_who_is_there() -> None:
    cells = [0] * N_ADDRESS_CELLS
    one, two = (AddressCounts(inf, "in", Addresses(cells, 0, worker, Guard())) for worker in range(2))
    assert all(one.enter("192.0.2.1") for _ in range(3))
    assert not any(cells), "nobody asks"
    one.limit = two.limit = 4
    assert [two.enter("192.0.2.1"), two.enter("192.0.2.1")] == [True, False]
    one.limit = two.limit = inf
    assert not any(cells[1::2])


def test_who_is_gone_is_forgotten() -> None:
    counts = AddressCounts(1)
    for ip in ("192.0.2.1", "2001:db8::1"):
        counts.enter(ip)
        counts.enter(ip)
        counts.leave(ip)
        counts.leave(ip)
        counts.leave(ip)  # was never there
    assert counts.counts == {}


def test_a_peer_without_address_is_not_counted() -> None:
    counts = AddressCounts(1)
    assert counts.enter("") and counts.enter("")
    counts.leave("")
    assert counts.counts == {}


def test_a_limit_that_comes_later_holds_for_who_is_here() -> None:
    counts = AddressCounts(float("inf"))
    assert counts.enter("192.0.2.1") and counts.enter("192.0.2.1")
    counts.limit = 2
    assert not counts.enter("192.0.2.1")
    for _ in range(3):
        counts.leave("192.0.2.1")
    assert counts.counts == {}


def test_turns_are_first_come_first_served() -> None:
    turns = Turns(2)
    came: list[str] = []
    names = list("abcdef")
    assert [turns.enter(name, partial(came.append, name)) for name in names] == [True, True] + [False] * 4
    turns.leave("d")  # gives up
    assert came == [] and not turns.is_waiting("d") and turns.is_waiting("c")
    turns.leave("a")
    turns.leave("c")
    assert came == ["c", "e"] and turns.n_active == 2
    assert not turns.enter("g", partial(came.append, "g"))
    for name in ("b", "e", "f", "g"):
        turns.leave(name)
    assert came == ["c", "e", "f", "g"] and turns.n_active == 0


def test_a_turn_that_is_over_at_once_passes_on() -> None:
    turns = Turns(1)
    came: list[str] = []

    def over(name: str) -> None:
        came.append(name)
        turns.leave(name)

    assert turns.enter("first", lambda: None)
    for name in "abc":
        assert not turns.enter(name, partial(over, name))
    turns.leave("first")
    assert came == ["a", "b", "c"] and turns.n_active == 0
    assert turns.enter("next", lambda: None)
