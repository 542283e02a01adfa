"""The interface of strategies: what every strategy of the registry and any plug-in can rely on."""

from __future__ import annotations

import random

import pytest

from lbproxy.domain.strategies import NAMES, create
from lbproxy.domain.strategies.base import PickContext, Strategy
from tests.unit.domain.strategies.helpers import make_servers


def test_a_context_knows_the_client_and_nothing_of_servers() -> None:
    context = PickContext("192.0.2.1")
    assert (context.client_ip, context.request, context.key) == ("192.0.2.1", None, b"")
    with pytest.raises(AttributeError):
        context.tried = ()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_keeps_the_contract(name: str) -> None:
    servers = make_servers([1, 2, 3, 1], inflight=[3, 0, 1, 2])
    strategy: Strategy = create(name, {}, random.Random(1))
    assert strategy.hash_on in ("", "client_ip")
    strategy.rebuild(servers)
    before = [server.inflight for server in servers]
    for eligible in (servers, servers[1:], servers[3:], (servers[0], servers[2])):
        for number in range(50):
            assert strategy.pick(eligible, PickContext(f"10.0.0.{number}"), float(number)) in eligible
    assert [server.inflight for server in servers] == before
    strategy.rebuild(())
    strategy.rebuild(servers[:1])
    assert strategy.pick(servers[:1], PickContext("10.0.0.1"), 100.0) is servers[0]
