"""Heads of requests of HTTP/2, sound and malformed (RFC 9113 sections 8.2 to 8.6), all for /case: see h2_cases.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lbproxy.protocol.h2.codes import PROTOCOL_ERROR
from tests.support.h2_cases import STREAM, Case, Outcome, answers, resets
from tests.support.h2_ends import Pairs, headers

Field = tuple[bytes, bytes]
METHOD: Final = (b":method", b"POST")
SCHEME: Final = (b":scheme", b"http")
AUTHORITY: Final = (b":authority", b"case.example")
PATH: Final = (b":path", b"/case")
GET: Final = ((b":method", b"GET"), SCHEME, AUTHORITY, PATH)
POST: Final = (METHOD, SCHEME, AUTHORITY, PATH)
MALFORMED: Final = resets(PROTOCOL_ERROR)


def case(section: str, name: str, want: Outcome, *steps: bytes | int, reaches: int = 0, also: int = 0) -> Case:
    """One that is played on a connection that has begun."""
    return Case(section, name, steps, want, reaches=reaches, also=also)


def _with(*fields: Field) -> bytes:
    return headers(STREAM, [*GET, *fields], is_end=True)


def names() -> Iterator[Case]:
    """Section 8.2.1: which octets a name may have, and 8.2.2: which names there may not be."""
    for octet in (*range(0x21), *b'"(),/;<=>?@[\\]{}', 0x41, 0x5A, 0x7F, 0x80, 0xA0, 0xFF):
        yield case("8.2.1", f"{octet:#04x} in a name", MALFORMED, _with((b"x-%c-x" % octet, b"v")))
    for octet in b"!#$%&'*+-.^`|~09az":
        yield case(
            "8.2.1", f"{octet:#04x} in a name is allowed", answers(200), _with((b"x%cx" % octet, b"v")), reaches=1
        )
    for what, field in (
        ("upper case at the beginning", b"X-name"),
        ("upper case at the end", b"x-namE"),
        ("a colon at the end", b"x-name:"),
        ("a colon within", b"x:name"),
        ("no octets", b""),
        ("a space at the end", b"content-length "),
        ("a line break", b"x\r\ny"),
        ("a head of HTTP/1 in it", b"x: y\r\ntransfer-encoding: chunked\r\nz"),
    ):
        yield case("8.2.1", f"a name with {what}", MALFORMED, _with((field, b"1")))
    for name, value in (
        (b"connection", b"close"),
        (b"connection", b"x-a"),
        (b"connection", b""),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"te", b"trailers, deflate"),
        (b"te", b"trailers;q=0.5"),
        (b"te", b""),
    ):
        yield case("8.2.2", f"{name.decode()}: {value.decode()}", MALFORMED, _with((name, value)))
    yield case("8.2.2", "te: trailers", answers(200), _with((b"te", b"trailers")), reaches=1)
    yield case("8.6", "upgrade: h2c", MALFORMED, _with((b"upgrade", b"h2c"), (b"http2-settings", b"AAMAAABk")))


def values() -> Iterator[Case]:
    """Section 8.2.1."""
    for what, octets in (("NUL", b"\0"), ("CR", b"\r"), ("LF", b"\n"), ("CR LF", b"\r\n"), ("a fold", b"\r\n ")):
        for place, pattern in (
            ("at the beginning", b"%bv"),
            ("within", b"a%bv"),
            ("at the end", b"v%b"),
            ("alone", b"%b"),
        ):
            yield case("8.2.1", f"{what} {place} of a value", MALFORMED, _with((b"x-a", pattern % octets)))
    for what, octets in (("SP", b" "), ("HTAB", b"\t")):
        for place, pattern in (("at the beginning", b"%bv"), ("at the end", b"v%b"), ("alone", b"%b")):
            yield case("8.2.1", f"{what} {place} of a value", MALFORMED, _with((b"x-a", pattern % octets)))
        yield case(
            "8.2.1", f"{what} within a value is allowed", answers(200), _with((b"x-a", b"v%bv" % octets)), reaches=1
        )
    for octet in (0x01, 0x08, 0x0B, 0x1F, 0x7F):
        yield case("8.2.1", f"{octet:#04x} in a value", MALFORMED, _with((b"x-a", b"v%cv" % octet)))
    for octet in (0x80, 0xA0, 0xFF):
        yield case(
            "8.2.1", f"{octet:#04x} in a value is allowed", answers(200), _with((b"x-a", b"v%cv" % octet)), reaches=1
        )
    yield case("8.2.1", "an empty value", answers(200), _with((b"x-a", b"")), reaches=1)
    yield case(
        "8.2.1",
        "a request within a value",
        MALFORMED,
        _with((b"x-a", b"b\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n")),
    )
    yield case(
        "8.2.3",
        "cookie crumbs",
        answers(200),
        _with((b"cookie", b"a=b"), (b"x-a", b"b"), (b"cookie", b"c=d")),
        reaches=1,
    )
    yield case("8.2.3", "a crumb with a line break", MALFORMED, _with((b"cookie", b"a=b"), (b"cookie", b"c\r\nx: y")))


def heads() -> Iterator[Case]:
    """Section 8.3 and 8.5."""

    def sent(fields: Pairs) -> bytes:
        return headers(STREAM, fields, is_end=True)

    for at, (name, _) in enumerate(POST):
        known = name.decode()
        others = [field for field in POST if field[0] != name]
        if name != b":authority":
            yield case("8.3.1", f"{known} is missing", MALFORMED, sent(others))
        yield case("8.3.1", f"{known} is empty", MALFORMED, sent([*others, (name, b"")]))
        yield case("8.3.1", f"{known} twice", MALFORMED, sent([*POST[: at + 1], POST[at], *POST[at + 1 :]]))
        yield case("8.3", f"{known} behind a field", MALFORMED, sent([*others, (b"x-a", b"b"), POST[at]]))
        yield case("8.3", f"{known} twice, once behind a field", MALFORMED, sent([*POST, (b"x-a", b"b"), POST[at]]))
        yield case("8.3.1", f"{known} with a space", MALFORMED, sent([*others, (name, POST[at][1] + b" x")]))
        yield case("8.3.1", f"{known} with a line break", MALFORMED, sent([*others, (name, POST[at][1] + b"\r\nx: y")]))
        yield case("8.3", f"{known} in upper case", MALFORMED, sent([*others, (name.upper(), POST[at][1])]))
    yield case("8.3.1", "nobody says whom it is for", MALFORMED, sent([METHOD, SCHEME, PATH]))
    for what, field in (
        (":status in a request", (b":status", b"200")),
        ("an unknown pseudo-field", (b":unknown", b"x")),
        ("an empty pseudo-field", (b":", b"x")),
        (":protocol that was not offered", (b":protocol", b"websocket")),
        (":host", (b":host", b"a")),
    ):
        yield case("8.3", what, MALFORMED, sent([*POST, field]))
    for what, path in (
        ("relative", b"case"),
        ("an asterisk with POST", b"*"),
        ("a URL", b"http://case.example/case"),
        ("with a control character", b"/ca\x01se"),
        ("not ASCII", b"/ca\xffse"),
        ("a whole request line", b"/evil HTTP/1.1\r\nHost: a\r\n\r\n"),
    ):
        yield case("8.3.1", f":path is {what}", MALFORMED, sent([METHOD, SCHEME, AUTHORITY, (b":path", path)]))
    yield case("8.3.1", ":path has a fragment", answers(400), sent([*GET[:3], (b":path", b"/case#part")]))
    yield case("8.3.1", "Host is empty", MALFORMED, sent([*GET[:2], GET[3], (b"host", b"")]))
    yield case("8.3.1", "Host is empty beside :authority", MALFORMED, sent([*GET, (b"host", b"")]))
    for what, authority in (
        ("user information", b"user@case.example"),
        ("a user and a password", b"user:word@case.example"),
        ("a path", b"case.example/x"),
        ("two ports", b"a:1:2"),
        ("a comma", b"a,b"),
    ):
        yield case(
            "8.3.1", f":authority with {what}", MALFORMED, sent([METHOD, SCHEME, (b":authority", authority), PATH])
        )
    for what, method in (
        ("a tab", b"GE\tT"),
        ("a parenthesis", b"GET("),
        ("a colon", b"GE:T"),
        ("not ASCII", b"G\xffT"),
    ):
        yield case("8.3.1", f":method with {what}", MALFORMED, sent([(b":method", method), SCHEME, AUTHORITY, PATH]))
    yield case(
        "8.3.1", ":scheme that begins with a digit", MALFORMED, sent([METHOD, (b":scheme", b"1http"), AUTHORITY, PATH])
    )
    yield case("8.3.1", ":authority and Host differ", MALFORMED, sent([*POST, (b"host", b"other.example")]))
    yield case("8.3.1", "Host twice", MALFORMED, sent([METHOD, SCHEME, PATH, (b"host", b"a"), (b"host", b"a")]))
    yield case("8.3.1", "Host with a line break", MALFORMED, sent([METHOD, SCHEME, PATH, (b"host", b"a\r\nx: y")]))
    yield case(
        "8.3.1",
        "Host and no :authority",
        answers(200),
        sent([*GET[:2], GET[3], (b"host", b"case.example")]),
        reaches=1,
    )
    yield case("8.3.1", "Host equal to :authority", answers(200), _with((b"host", b"case.example")), reaches=1)
    yield case(
        "8.3.1",
        "pseudo-fields in another order",
        answers(200),
        sent([PATH, AUTHORITY, SCHEME, (b":method", b"GET")]),
        reaches=1,
    )
    yield case(
        "8.3.1",
        "OPTIONS with an asterisk",
        answers(200),
        sent([(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")]),
        reaches=1,
    )
    yield case(
        "8.3.1",
        "a method that nobody knows",
        answers(200),
        sent([(b":method", b"BREW"), SCHEME, AUTHORITY, PATH]),
        reaches=1,
    )
    connect = (b":method", b"CONNECT")
    yield case("8.5", "CONNECT", answers(405), sent([connect, (b":authority", b"a.example:443")]))
    yield case("8.5", "CONNECT with :scheme", MALFORMED, sent([connect, SCHEME, (b":authority", b"a.example:443")]))
    yield case("8.5", "CONNECT with :path", MALFORMED, sent([connect, PATH, (b":authority", b"a.example:443")]))
    yield case("8.5", "CONNECT without :authority", MALFORMED, sent([connect]))
    yield case("8.5", "CONNECT without a port", MALFORMED, sent([connect, (b":authority", b"a.example")]))
