"""What a strategy is given, and what becomes of its defects."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from lbproxy.address import Address
from lbproxy.domain.picker import Picker
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.hashing import IpHash

SERVERS = tuple(Server(name, Address("10.0.0.1", number)) for number, name in enumerate("abc", 1))


class Seen:
    """Remembers the keys that it was given, and picks the last server."""

    def __init__(self, hash_on: str = "") -> None:
        self.hash_on = hash_on
        self.keys: list[bytes] = []

    def rebuild(self, servers: Sequence[Server]) -> None:
        raise ZeroDivisionError

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        self.keys.append(ctx.key)
        return eligible[-1]


def fallback() -> IpHash:
    made = create("ip_hash", {}, random.Random(1))
    assert isinstance(made, IpHash)
    return made


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", b"192.0.2.1"),
        ("::ffff:192.0.2.1", b"192.0.2.1"),
        ("2001:db8::1", bytes.fromhex("20010db800000000")),
        ("unix", b"unix"),
    ],
)
def test_a_strategy_that_hashes_on_the_client_has_its_key(address: str, key: bytes) -> None:
    strategy = Seen("client_ip")
    picker = Picker(strategy, fallback(), print)
    ctx = PickContext(address)
    for _ in range(2):
        assert picker.pick(SERVERS, ctx, 0.0) is SERVERS[-1]
    assert strategy.keys == [key, key]


def test_the_key_is_that_of_the_client_that_asks_now() -> None:
    """A connection of a trusted proxy has many clients, one after the other."""
    strategy = Seen("client_ip")
    picker = Picker(strategy, fallback(), print)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.2"):
        picker.pick(SERVERS, PickContext(address), 0.0)
    assert strategy.keys == [b"192.0.2.1", b"192.0.2.2", b"192.0.2.2"]


def test_who_does_not_hash_has_no_key() -> None:
    strategy = Seen()
    Picker(strategy, fallback(), print).pick(SERVERS, PickContext("192.0.2.1"), 0.0)
    assert strategy.keys == [b""]


def test_a_defect_of_the_strategy_is_reported_and_the_fallback_picks() -> None:
    class Defective(Seen):
        def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
            raise LookupError("nothing there")

    reported: list[Exception] = []
    picker = Picker(Defective(), fallback(), reported.append)
    picker.rebuild(SERVERS)
    assert picker.pick(SERVERS, PickContext("192.0.2.1"), 0.0) in SERVERS
    assert [type(error) for error in reported] == [ZeroDivisionError, LookupError]


def test_without_a_word_of_the_strategy_nobody_is_slower() -> None:
    picker = Picker(Seen(), fallback(), print)
    assert not picker.step(SERVERS, 100.0)
    assert picker.prefer(SERVERS) == SERVERS and not picker.is_slower(SERVERS[0])
    assert not picker.heeds_penalties and not picker.is_hashing
