from __future__ import annotations

import pytest

from lbproxy.address import Address, AddressRange
from lbproxy.config.checks import WEIGHTLESS
from lbproxy.config.server_model import (
    BUILT_IN_STRATEGIES,
    ServerSpec,
    expand_servers,
    parse_server_address,
)
from lbproxy.domain.strategies import NAMES


def servers(*items: object) -> list[tuple[str, str, int]]:
    specs = expand_servers(ServerSpec.model_validate(item) for item in items)
    return [(str(spec.address), spec.name, spec.weight) for spec in specs]


def test_every_form_of_a_server() -> None:
    assert servers(
        "127.0.0.1:5001",
        "[::1]:5001",
        "gpu.internal:5001",
        "unix:/run/a-1.sock",
        "unix:@abstract:5-6",
        "host:5001-5003",
        {"address": "a:1", "name": "x", "weight": 0},
        {"address": "b:1-2", "name": "y", "weight": 3},
    ) == [
        ("127.0.0.1:5001", "127.0.0.1:5001", 1),
        ("[::1]:5001", "[::1]:5001", 1),
        ("gpu.internal:5001", "gpu.internal:5001", 1),
        ("unix:/run/a-1.sock", "unix:/run/a-1.sock", 1),
        ("unix:@abstract:5-6", "unix:@abstract:5-6", 1),
        ("host:5001", "host:5001", 1),
        ("host:5002", "host:5002", 1),
        ("host:5003", "host:5003", 1),
        ("a:1", "x", 0),
        ("b:1", "y-1", 3),
        ("b:2", "y-2", 3),
    ]


def test_a_range_has_a_bound() -> None:
    assert parse_server_address("a:1-256") == AddressRange("a", 1, "", 256)
    for written in ("a:1-257", "a:0-5", "a:5-5", "a:6-5", "a:65535-65536", ":1-5", "a:1-2-3"):
        with pytest.raises(ValueError, match=r"\w"):
            parse_server_address(written)


def test_expanded_addresses_are_plain() -> None:
    (first, _) = expand_servers([ServerSpec.model_validate("a:1-2")])
    assert type(first.address) is Address


def test_names_and_weights_agree_with_the_strategies_themselves() -> None:
    assert list(BUILT_IN_STRATEGIES) == list(NAMES)
    assert set(WEIGHTLESS) == {"round_robin"}, "tests/unit/domain/strategies/test_init.py shows it of the strategy"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("10.0.0.1-4:80", "range of hosts.*write each host: 10.0.0.1:80, ..., 10.0.0.4:80"),
        ("10.0.0.1-4:5001-5004", "range of hosts"),
        ("10.0.0.1-10.0.0.4:80", "range of hosts.*10.0.0.1:80, ..., 10.0.0.4:80"),
        ("10.0.0.1..4:80", "range of hosts"),
        ("model-[1-3]:80", "pattern for several hosts"),
        ("10.0.0.{1,2}:80", "several servers in one text"),
        ("model-*:80", "pattern for several hosts"),
        ("10.0.0.0/30:80", "names a network"),
        ("a:80,b:80", "several servers in one text"),
        ("a:80 b:80", "several servers in one text"),
    ],
)
def test_only_ports_can_be_a_range(written: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_server_address(written)


@pytest.mark.parametrize(
    "written", ["model-1-4:80", "predict-0.predict:80", "[fd00::1]:80", "10-0-0-1.pod:80", "1a-2:80"]
)
def test_names_with_dashes_are_names(written: str) -> None:
    assert str(parse_server_address(written)) == written
