"""What the fields of a head mean."""

from __future__ import annotations

import pytest

from lbproxy.protocol.h2.fields import H2Field, make_field
from lbproxy.protocol.h2.head import (
    Malformed,
    check_trailers,
    lines_of,
    read_answer,
    read_request,
    secrets_among,
    too_large,
)
from tests.support.h2_ends import GET, OK, POST, Pairs


def made(fields: Pairs) -> list[H2Field]:
    return [make_field(name, value) for name, value in fields]


def test_a_request() -> None:
    head = read_request(
        made(
            (
                *POST,
                (b"content-type", b"application/grpc+proto"),
                (b"cookie", b"a=1"),
                (b"te", b"trailers"),
                (b"content-length", b"5"),
                (b"cookie", b"b=2"),
                (b"expect", b"100-Continue"),
                (b"host", b"A"),
                (b"x", b""),
                (b"cookie", b"c=3"),
            )
        ),
        False,
    )
    assert (head.method, head.scheme, head.authority, head.path, head.protocol) == (b"POST", b"http", b"a", b"/", b"")
    assert head.lines == (
        b"content-type: application/grpc+proto\r\ncookie: a=1; b=2; c=3\r\nexpect: 100-Continue\r\nx: \r\n"
    )
    assert head.lines is head.lines
    assert (head.content_length, head.status, head.excess) == (5, 0, "")
    assert head.is_grpc
    assert head.accepts_trailers
    assert head.expects_continue


def test_a_request_of_little() -> None:
    head = read_request(made(GET), False)
    assert (head.lines, head.content_length) == (b"", None)
    assert not head.is_grpc
    assert not head.accepts_trailers
    assert not head.expects_continue
    assert read_request(made((*GET, (b"content-type", b"text/grpc"), (b"expect", b"x"))), False).is_grpc is False


def test_a_cookie_is_as_secret_as_its_crumbs() -> None:
    """RFC 7541 section 7.1.3."""
    crumbs = [make_field(b"cookie", b"a"), make_field(b"cookie", b"b", is_secret=True)]
    assert read_request([*made(GET), *crumbs], False).fields[0].is_secret
    assert not read_request([*made(GET), crumbs[0], crumbs[0]], False).fields[0].is_secret


def test_equal_crumbs_are_joined_once() -> None:
    """A table gives the same object each time that it is asked."""
    crumb, other = made([(b"cookie", b"a=1"), (b"x", b"y")])
    head = read_request([*made(GET), crumb, other, crumb, crumb], False)
    assert head.lines == b"cookie: a=1; a=1; a=1\r\nx: y\r\n"


def test_an_empty_crumb_is_none() -> None:
    for values, joined in (((b"", b"a", b""), b"a"), ((b"", b""), b""), ((b"a", b"", b"b"), b"a; b")):
        head = read_request(made((*GET, *[(b"cookie", value) for value in values])), False)
        assert head.lines == b"cookie: %b\r\n" % joined


def test_an_answer() -> None:
    head = read_answer(
        made(
            (
                *OK,
                (b"content-length", b"5"),
                (b"server", b"x"),
                (b"host", b"h"),
                (b"set-cookie", b"a"),
                (b"cookie", b"c"),
            )
        )
    )
    assert (head.status, head.content_length) == (200, 5)
    assert head.lines == b"server: x\r\nhost: h\r\nset-cookie: a\r\ncookie: c\r\n"
    assert not head.is_grpc
    assert read_answer(made((*OK, (b"content-type", b"application/grpc")))).is_grpc


def test_one_that_is_too_large() -> None:
    head = too_large("more than 3 fields")
    assert head.excess == "more than 3 fields"
    assert (head.method, head.fields) == (b"", [])


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((), "there is no :method"),
        ((*GET, (b":status", b"200")), "a request has :status"),
        ((*GET[:3],), "there is no :path"),
        ((*GET, (b"host", b"b")), ":authority and Host differ"),
        ((*GET, (b"a", b"b"), (b":path", b"/")), "a pseudo-field stands behind other fields"),
        ((*GET, (b":path", b"/")), "a pseudo-field stands twice"),
        ((*GET, (b"a", b"\0")), "the value of 'a' has octets that HTTP does not allow"),
        ((*GET, (b":protocol", b"websocket")), ":protocol was not offered"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(fields: Pairs, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read_request(made(fields), False)


def test_extended_connect_has_everything() -> None:
    """RFC 8441 section 4."""
    fields = ((b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:])
    assert read_request(made(fields), True).protocol == b"websocket"
    for index in (2, 3, 4):
        with pytest.raises(Malformed):
            read_request(made(fields[:index] + fields[index + 1 :]), True)


def test_trailers() -> None:
    check_trailers([])
    check_trailers(made([(b"grpc-status", b"0"), (b"content-length", b"1")]))
    with pytest.raises(Malformed, match="trailers have a pseudo-field"):
        check_trailers(made(OK))
    with pytest.raises(Malformed, match="no name"):
        check_trailers(made([(b"A", b"")]))
    assert lines_of(made([(b"a", b"b"), (b"c", b"d")])) == b"a: b\r\nc: d\r\n"


def test_which_names_are_secret_besides_those_that_always_are() -> None:
    fields = [make_field(name, b"x", is_secret=True) for name in (b"cookie", b"authorization", b"x-token", b":path")]
    assert secrets_among([*fields, make_field(b"a", b"b")]) == {b"x-token", b":path"}
