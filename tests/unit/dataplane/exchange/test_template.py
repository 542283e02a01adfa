"""What is made of a template is what is prepared of the whole head."""

from __future__ import annotations

import functools
import random

import pytest

from lbproxy.compiling import hpack_literal
from lbproxy.dataplane.exchange.deadline import Deadlines
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.exchange.template import Template
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.domain.strategies.base import RequestView
from lbproxy.protocol.h2.fields import make_field
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.request import RequestHead2
from lbproxy.protocol.h2.tail import Tail, tail_at, tail_of
from lbproxy.protocol.http1 import RequestHead
from lbproxy.telemetry.accesslog import make_format
from tests.support.listeners import listener_of

Pair = tuple[bytes, bytes]
POOLS = """
pools:
  up: {protocol: h2, servers: ["127.0.0.1:2"]}
  either: {protocol: auto, tls: {verify: false}, servers: ["127.0.0.1:2"]}
  old: {servers: ["127.0.0.1:2"]}
"""
PLAIN = 'listeners: [{bind: "127.0.0.1:1", pool: up, limits: {headers: 20}}]'
ROUTES = """
listeners:
- bind: "127.0.0.1:1"
  routes:
  - {match: {path_prefix: /api}, pool: up, rewrite: {strip_prefix: /api, path_prefix: /v2}, timeouts: {total: 5s}}
  - {match: {path: /edited}, pool: up, headers: {request: {set: {X-A: "1"}}}}
  - {match: {path: /retried}, pool: up, retry: {idempotency_key: true}}
  - {match: {path: /old}, pool: old}
  - {match: {path: /fixed}, respond: {status: 200}}
  - {match: {path_prefix: /}, pool: up}
"""
BY_HEADER = """
listeners:
- bind: "127.0.0.1:1"
  routes:
  - {match: {headers: {x-beta: "1"}}, pool: old}
  - {pool: up}
"""
FRONT = H2Head([])
TRACE = (b"traceparent", b"00-1-2-01")
START = b"POST %b HTTP/1.1\r\nHost: h\r\nuser-agent: u\r\ncontent-type: application/grpc\r\n"
END = b"Content-Length: 7\r\nTE: trailers\r\nConnection: TE\r\n\r\n"


@functools.cache
def listener(config: str) -> ListenerRuntime:
    return listener_of(config + POOLS)


def prepared_of(config: str, raw: bytes, *, is_trusted: bool = False) -> Prepared:
    return prepare(
        listener(config), raw, is_trusted=is_trusted, log_format=make_format("json"), local_host="l", is_http2=True
    )


def template_of(config: str, raw: bytes, *, is_trusted: bool = False) -> Template:
    prepared = prepared_of(config, raw, is_trusted=is_trusted)
    return Template(FRONT, prepared, listener(config), 2, is_trusted=is_trusted)


def tail_of_fields(*pairs: Pair) -> Tail:
    """As they are where some of them stand in the client's table, or in Huffman's code."""
    fields = [make_field(name, value) for name, value in pairs]
    assert all(field.is_inert for field in fields)
    tail = tail_of(FRONT, fields)
    assert tail is not None
    return tail


def tail_in_block(*pairs: Pair) -> Tail:
    """As they are where all of them are spelled out."""
    block = b"front" + b"".join([hpack_literal(b"\0%c%b" % (len(name), name), value) for name, value in pairs])
    tail = tail_at(FRONT, block, 5)
    assert tail is not None and tail.block
    return tail


TAILS = (tail_of_fields, tail_in_block)


def facts_of(thing: object) -> object:
    """All of it, but for what was only looked up, and of which parts it was made."""
    if isinstance(thing, RequestHead2):
        return thing.method, thing.path, thing.authority, thing.lines, thing.length
    if isinstance(thing, (Prepared, RequestHead, Deadlines)):
        values = {name: getattr(thing, name) for name in dir(thing) if not name.startswith("_")}
        for part in ("cut", "forward_size", "meaning", "tail"):
            values.pop(part, None)
        return {name: facts_of(value) for name, value in values.items() if not callable(value)}
    return thing


def assert_same(config: str, start: bytes, *pairs: Pair, is_trusted: bool = False, end: bytes = END) -> None:
    whole = prepared_of(config, start + b"".join([b"%b: %b\r\n" % pair for pair in pairs]) + end, is_trusted=is_trusted)
    for tail in [make(*pairs) for make in TAILS]:
        made = template_of(config, start + end, is_trusted=is_trusted).followed_by(tail)
        assert made is not None
        assert facts_of(made) == facts_of(whole)
        assert made.head.headers == whole.head.headers
        assert 0 <= made.forward_size - len(made.forward) <= tail.timeout_size


@pytest.mark.parametrize("config", [PLAIN, ROUTES])
@pytest.mark.parametrize("path", [b"/", b"/api/x?y=z"])
@pytest.mark.parametrize("end", [END, b"Transfer-Encoding: chunked\r\n\r\n", b"\r\n"])
@pytest.mark.parametrize(
    "pairs", [(TRACE,), (TRACE, (b"x", b"")), (TRACE, (b"grpc-timeout", b"250m"), (b"x", b"y")), (TRACE, TRACE)]
)
def test_it_is_what_is_prepared(config: str, path: bytes, end: bytes, pairs: tuple[Pair, ...]) -> None:
    assert_same(config, START % path, *pairs, end=end)


def test_a_pool_that_may_speak_either_version_has_both_heads() -> None:
    assert_same(PLAIN.replace("pool: up", "pool: either"), START % b"/", TRACE)


def test_any_fields() -> None:
    """Names and values as they come."""
    rng = random.Random(5)
    for _ in range(300):
        name_octets, value_octets = b"abcxyz-09!~", bytes([*range(0x20, 0x7F), 0xE9, 9])
        pairs = []
        for _ in range(rng.randrange(1, 6)):
            name = bytes(rng.choices(name_octets, k=rng.randrange(1, 20)))
            value = bytes(rng.choices(value_octets, k=rng.randrange(30))).strip(b" \t")
            pairs.append((name, value))
        assert_same(PLAIN, START % b"/", *pairs)


def test_the_head_of_the_template_stays_as_it_is() -> None:
    template = template_of(PLAIN, START % b"/" + END)
    before = facts_of(template.prepared)
    for make in TAILS:
        made = template.followed_by(make(TRACE, (b"grpc-timeout", b"1S")))
        assert made is not None and made.total_s == 1.0 and made.head is not template.prepared.head
    assert facts_of(template.prepared) == before


@pytest.mark.parametrize(
    "pairs",
    [
        ((b"grpc-timeout", b"soon"),),
        tuple([(b"x", b"%d" % number) for number in range(15)]),
    ],
)
def test_where_it_is_not_sure_nothing_is_made(pairs: tuple[Pair, ...]) -> None:
    for make in TAILS:
        assert template_of(PLAIN, START % b"/" + END).followed_by(make(*pairs)) is None


def test_a_time_out_on_both_sides_is_for_prepare() -> None:
    template = template_of(PLAIN, START % b"/" + b"grpc-timeout: 1S\r\n" + END)
    for make in TAILS:
        assert template.followed_by(make((b"grpc-timeout", b"2S"))) is None
        assert template.followed_by(make(TRACE)) is not None


def test_fields_by_which_a_trusted_peer_tells_its_patience_are_for_prepare() -> None:
    listening = listener_of(PLAIN + POOLS)
    listening.deadline_names = frozenset((b"x-patience",))
    template = Template(FRONT, prepared_of(PLAIN, START % b"/" + END), listening, 2, is_trusted=True)
    strange = Template(FRONT, template.prepared, listening, 2, is_trusted=False)
    for make in TAILS:
        assert template.followed_by(make((b"x-patience", b"2s"))) is None
        assert template.followed_by(make(TRACE)) is not None
        assert strange.followed_by(make((b"x-patience", b"2")))


def test_a_strategy_sees_the_whole_head() -> None:
    raw = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nx-user: u\r\n%b\r\n"
    whole = prepared_of(PLAIN, raw % b"x-session: 7\r\n").head
    for make in TAILS:
        made = template_of(PLAIN, raw % b"").followed_by(make((b"x-session", b"7")))
        assert made is not None
        seen: RequestView = made
        assert (seen.method, seen.path, seen.query, seen.host) == (whole.method, whole.path, whole.query, whole.host)
        assert seen.headers == whole.headers == {"host": "h", "x-user": "u", "x-session": "7"}


@pytest.mark.parametrize(
    ("config", "path"),
    [(ROUTES, b"/edited"), (ROUTES, b"/retried"), (ROUTES, b"/fixed"), (BY_HEADER, b"/")],
)
def test_where_fields_are_looked_at_it_may_not_vary(config: str, path: bytes) -> None:
    template = template_of(config, START % path + END)
    assert not template.may_vary and template.followed_by(tail_of_fields(TRACE)) is None


def test_a_guard_may_look_at_any_field() -> None:
    config = PLAIN + "\nrate_limits: [{rate: 5/s, key: client_ip}]"
    assert not template_of(config, START % b"/" + END).may_vary
