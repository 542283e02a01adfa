"""Addresses: what is written, what is refused, and that text and address are the same thing."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address, AddressRange, authority, known_as, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("app.local:65535", Address("app.local", 65535)),
        ("[::1]:80", Address("::1", 80)),
        ("[2001:DB8:0::1]:80", Address("2001:db8::1", 80)),
        ("[FE80::1%eth0]:80", Address("fe80::1%eth0", 80)),
        ("[fe80::1%25eth0]:80", Address("fe80::1%eth0", 80)),
        ("[fe80::1%25]:80", Address("fe80::1%25", 80)),
        ("h:0", Address("h", 0)),
        ("unix:/run/app.sock", Address("", 0, "/run/app.sock")),
        ("unix:@name", Address("", 0, "@name")),
        ("unix:relative:name", Address("", 0, "relative:name")),
    ],
)
def test_what_is_an_address(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("host", "has no port"),
        ("host:", "is not a port"),
        ("host:65536", "is not a port"),
        ("host:-1", "is not a port"),
        ("host:+1", "is not a port"),
        ("host:1_0", "is not a port"),
        ("host:\u0661", "is not a port"),
        (":80", "has no host"),
        ("::1:80", r"in brackets: \[::1\]:80"),
        ("fe80::1%eth0:80", r"in brackets: \[fe80::1%eth0\]:80"),
        ("[::1]", r"has no port; write \[::1\]:PORT"),
        ("http://127.0.0.1:8404/metrics", "is a URL; write 127.0.0.1:8404$"),
        ("https://127.0.0.1", "is a URL; write host:port"),
        ("127.0.0.1:80:90", "has more than one port"),
        ("[nope]:80", "is not an IPv6 address"),
        ("[127.0.0.1]:80", "is not an IPv6 address"),
        ("unix:", "needs a path"),
        ("unix:@", "needs a path"),
        ("unix:/" + "x" * 107, "at most 107 bytes"),
        ("unix:/" + "é" * 54, "at most 107 bytes"),
    ],
)
def test_what_is_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_address(text)


def test_the_default_host_is_used_where_there_is_one() -> None:
    assert parse_address(":80", default_host="0.0.0.0") == Address("0.0.0.0", 80)
    assert parse_address("h:80", default_host="0.0.0.0") == Address("h", 80)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_text_and_address_are_the_same(ip: object, port: int) -> None:
    address = Address(str(ip), port)
    assert parse_address(str(address)) == address
    assert address.is_literal and not address.is_unix


def test_what_the_kernel_is_given_for_unix_sockets() -> None:
    assert parse_address("unix:/run/a").sock_path == "/run/a"
    assert parse_address("unix:@a").sock_path == "\0a"
    assert str(parse_address("unix:@a")) == "unix:@a"
    assert parse_address("unix:@a").is_unix and parse_address("unix:@a").is_literal


def test_a_name_needs_a_look_up() -> None:
    assert not Address("localhost", 80).is_literal
    assert not Address("127.0.0.1.example", 80).is_literal


@pytest.mark.parametrize(
    ("host", "name", "field"),
    [
        ("a.example", "a.example", "a.example:80"),
        ("A.Example.", "a.example", "a.example:80"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1:80"),
        ("::1", "::1", "[::1]:80"),
        ("fe80::1%eth0", "fe80::1", "[fe80::1]:80"),
        ("", "", "localhost"),
    ],
)
def test_a_peer_has_one_name_however_it_is_written(host: str, name: str, field: str) -> None:
    assert (known_as(host), authority(host, 80)) == (name, field)


@pytest.mark.parametrize("address", [Address("a", 1), Address("", 0, "/run/a.sock"), AddressRange("a", 1, "", 3)])
def test_a_copy_is_the_same(address: Address) -> None:
    """pydantic copies the defaults of a config."""
    assert copy.deepcopy({"of": address})["of"] == address
