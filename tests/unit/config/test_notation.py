from __future__ import annotations

from collections.abc import Callable

import pytest

from lbproxy.address import Address
from lbproxy.config.notation import (
    FILE,
    SECONDS,
    integer,
    parse_bind,
    parse_field_value,
    parse_host,
    parse_host_pattern,
    parse_location,
    parse_match_path,
    parse_pool_name,
    parse_proxy,
    parse_regex,
    parse_token,
)


def test_off_and_unset_are_none() -> None:
    assert SECONDS.or_off().parse("off") is None
    assert SECONDS.or_off().parse("2s") == 2.0
    assert SECONDS.or_unset().parse(None) is None
    with pytest.raises(ValueError, match="cannot be off"):
        SECONDS.or_unset().parse("off")


def test_a_number_that_may_be_0_says_so_to_who_turns_it_off() -> None:
    with pytest.raises(ValueError, match="cannot be off; write 0"):
        integer(0, 10).parse(False)
    with pytest.raises(ValueError, match="whole number from 1 to 10"):
        integer(1, 10).parse("off")


def test_no_file_has_an_empty_name() -> None:
    assert FILE.parse("a.pem") == "a.pem"
    with pytest.raises(ValueError, match="is empty: is the variable that it comes from set"):
        FILE.parse("")


@pytest.mark.parametrize("value", [0, 11, True, 1.0, "5", None])
def test_an_integer_has_a_range(value: object) -> None:
    assert integer(1, 10).parse(5) == 5
    with pytest.raises(ValueError, match="whole number from 1 to 10"):
        integer(1, 10).parse(value)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("Example.COM", "example.com"),
        ("*.X.org", "*.x.org"),
        ("a.b.", "a.b"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::0:1]", "[::1]"),
    ],
)
def test_host_patterns(written: str, host: str) -> None:
    assert parse_host_pattern(written) == host


REFUSED: list[tuple[Callable[[object], object], list[str]]] = [
    (parse_host_pattern, ["", "*", "*.", "a.*", "**.a", "a:80", "a b", "[::1", "[g]", "a..b", "é.com"]),
    (parse_host, ["", "*.a", "a b", "a\r\nb", "a:b", "[::1", "a:123456"]),
    (parse_field_value, ["a\r\nb", "a\nb", "a\rb", "a\0b", "a\x7fb", "a\x1bb", "€"]),
    (parse_token, ["", "a b", "a:b", "a\n", "é", "(a)", "a,b"]),
    (parse_match_path, ["", "a", "/a b", "/é", "/a\n", "/a?b", "/a#b"]),
    (parse_location, ["", "/a b", "/a\r\nSet-Cookie: x", "/\0", "/é"]),
    (parse_pool_name, ["", "a b", "a/b", "x" * 65, "é", "a\n"]),
    (parse_proxy, ["", "a", "10.0.0.1/8", "10.0.0.0/33", "1.2.3"]),
    (parse_regex, ["(", "[", "a{2,1}", "(?P<a>x)(?P<a>y)", "x{99999999999999999999}"]),
]


@pytest.mark.parametrize(
    ("parse", "written"),
    [(parse, written) for parse, texts in REFUSED for written in texts],
    ids=lambda value: value.__name__ if callable(value) else repr(value),
)
def test_what_is_refused(parse: Callable[[object], object], written: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(written)


def test_header_values_lose_only_the_space_around_them() -> None:
    assert parse_field_value(" a\tb é ") == "a\tb é"


def test_hosts_of_checks_may_have_ports() -> None:
    assert [parse_host(text) for text in ("a.b", "a.b:80", "[::1]:80")] == ["a.b", "a.b:80", "[::1]:80"]


def test_binds() -> None:
    assert parse_bind(":80") == Address("0.0.0.0", 80)
    assert parse_bind("[::]:0") == Address("::", 0)
    assert parse_bind("unix:@lb") == Address("", 0, "@lb")
    with pytest.raises(ValueError, match="NUL"):
        parse_bind("unix:/a\0b")
