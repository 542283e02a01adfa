"""Hints for values: what was probably meant. Whole messages stand in slips.txt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config import slips
from lbproxy.config.notation import checked_address
from lbproxy.config.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "meant"),
    [("300 s", 300.0), ("5 minutes", 300.0), ("1d", 86400.0), ("1h30m", 5400.0), ("1,5s", 1.5), ("2 Weeks", 1209600.0)],
)
def test_a_duration_that_is_suggested_can_be_read(text: str, meant: float) -> None:
    hint = slips.duration(text)
    assert parse_duration(hint.removeprefix("did you mean ").rstrip("?")) == meant


@pytest.mark.parametrize(("text", "meant"), [("10 MB", 10**7), ("64k", 65536), ("1 GiB", 1 << 30), ("7 bytes", 7)])
def test_a_size_that_is_suggested_can_be_read(text: str, meant: int) -> None:
    assert parse_size(slips.size(text).removeprefix("did you mean ").rstrip("?")) == meant


@pytest.mark.parametrize("value", [None, True, [], {}, "", "x", "5 parsecs", 1.5, float("nan"), "1" * 400])
def test_there_is_not_always_a_hint(value: object) -> None:
    assert (slips.duration(value), slips.size(value), slips.number(value)) == ("", "", "")


@given(st.text(max_size=30), st.booleans())
def test_hints_about_addresses_never_fail(text: str, is_server: bool) -> None:
    told = slips.address(text, is_server=is_server)
    assert isinstance(told, str)
    if "\n" not in text:
        assert "\n" not in told


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:80",
        "[::1]:80",
        "unix:/run/a",
        "unix:@a",
        "unix:/run/a $b.sock",
        "unix:/run/a:$b",
        "host:5001",
        "a-b.c:1",
        "[fe80::1%eth0]:80",
        "10-0-0-1.svc:80",
    ],
)
def test_what_is_an_address_is_left_alone(text: str) -> None:
    assert slips.address(text, is_server=True) == slips.address(text, is_server=False) == ""
    if "%" not in text:
        assert str(checked_address(text)) == text
