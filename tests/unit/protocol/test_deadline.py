"""Fields that say how long the sender waits."""

from __future__ import annotations

import pytest

from lbproxy.protocol.deadline import GRPC_TIMEOUT, parse_timeout, write_timeout

NAME = b"x-request-timeout"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"2.5", 2.5), (b"2", 2.0), (b"0", 0.0), (b"800ms", 0.8), (b"1.5ms", 0.0015), (b"2s", 2.0), (b"0.25s", 0.25),
        (b"100m", 0.1), (b"5S", 5.0), (b"1M", 60.0), (b"1H", 3600.0), (b"7u", 7e-6), (b"9n", 9e-9), (b"007", 7.0),
    ],
)  # fmt: skip
def test_times_in_every_notation(value: bytes, seconds: float) -> None:
    parsed = parse_timeout(NAME, value)
    assert parsed is not None and parsed[0] == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"s", b"-1", b"+1", b"1 s", b"1,5", b".5", b"1.", b"1e3", b"inf", b"nan", b"0x1", b"1_0", b"5min", b"5MS",
        b"1.5S", b"1.5m", b"123456789m", b"1234567890", b"1\n", b"2.5, 3", b"\xb2",
    ],
)  # fmt: skip
def test_what_is_no_time(value: bytes) -> None:
    assert parse_timeout(NAME, value) is None


@pytest.mark.parametrize("value", [b"2.5", b"2", b"800ms", b"2s"])
def test_grpc_has_its_own_notation_only(value: bytes) -> None:
    assert parse_timeout(GRPC_TIMEOUT, value) is None
    parsed = parse_timeout(GRPC_TIMEOUT, b"99999999m")
    assert parsed is not None and parsed[0] == pytest.approx(99999.999) and parsed[1] == b"m"


@pytest.mark.parametrize(
    ("seconds", "unit", "value"),
    [
        (1.23456, b"", b"1.234"), (1.0, b"s", b"1.000s"), (0.0789, b"ms", b"78ms"), (1.5, b"S", b"1500m"),
        (3600.0, b"H", b"3600000m"), (0.0000001, b"n", b"1m"), (-3.0, b"", b"0.001"), (200_000.0, b"H", b"200000S"),
        (1e12, b"H", b"99999999S"),
    ],
)  # fmt: skip
def test_what_is_left_is_written_in_the_same_notation(seconds: float, unit: bytes, value: bytes) -> None:
    assert write_timeout(seconds, unit) == value
    assert parse_timeout(NAME, value) is not None


@pytest.mark.parametrize("value", [b"2.5", b"800ms", b"2s"])
def test_a_time_survives_the_way_through_several_proxies(value: bytes) -> None:
    parsed = parse_timeout(NAME, value)
    assert parsed is not None
    again = parse_timeout(NAME, write_timeout(*parsed))
    assert again is not None and again[0] == pytest.approx(parsed[0], abs=0.0011) and again[1] == parsed[1]
