"""Values of the config as the data plane takes them. Most of them are seen in test_wiring.py, where they arrive."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from lbproxy.address import Address, parse_address
from lbproxy.config.queue_model import Queue
from lbproxy.process.settings import fair_rules, is_direct


@pytest.mark.parametrize(
    ("address", "direct"),
    [
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("unix:/x", True),
        ("10.1.2.3:1", True),
        ("10.1.3.3:1", False),
        ("[2001:db8::5]:1", True),
        ("[2001:db9::5]:1", False),
        ("name:1", False),
    ],
)
def test_who_is_directly_connected(address: str, direct: bool) -> None:
    networks = (ip_network("10.1.2.0/24"), ip_network("2001:db8::/64"))
    assert is_direct(parse_address(address), networks) is direct
    assert is_direct(Address("127.0.0.1", 1), ())


def test_a_queue_has_turns_where_the_config_says_so() -> None:
    assert fair_rules(Queue()) is None
    rules = fair_rules(Queue(fair_by="header:X-Tenant"))
    assert rules is not None and rules.key is not None
    assert (rules.key.name, rules.classes, rules.weights) == ("x-tenant", (), (1,))
    rules = fair_rules(Queue.model_validate({"priority": {"from": "any", "classes": ["paid", "free"]}}))
    assert rules is not None
    assert (rules.key, rules.header, rules.classes, rules.is_anybody) == (None, "x-priority", ("paid", "free"), True)
