"""HPACK, encoded: what enters the table, and that blocks stay valid."""

from __future__ import annotations

import random

import pytest

from lbproxy.compiling import hpack_literal
from lbproxy.protocol.h2.decoder import Decoder
from lbproxy.protocol.h2.encoder import _DICTIONARY, Encoder, integer
from lbproxy.protocol.h2.fields import make_field
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.tail import tail_at, tail_of
from lbproxy.protocol.message import NO_NAMES

LINES = b"Content-Type: application/json\r\nServer: x\r\n"


class Joined:
    """An encoder, and the decoder of its peer."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.decoder = Decoder(1000, 1 << 20)

    def read(self, block: bytes) -> list[tuple[bytes, bytes]]:
        return [(field.name, field.value) for field in self.decoder.decode(block)]


@pytest.mark.parametrize(
    ("number", "mask", "flags", "octets"),
    [
        (10, 0x1F, 0, "0a"),
        (1337, 0x1F, 0, "1f9a0a"),
        (42, 0xFF, 0, "2a"),
        (30, 0x1F, 0x20, "3e"),
        (31, 0x1F, 0x20, "3f00"),
        (127, 0x7F, 0x80, "ff00"),
        (254, 0x7F, 0, "7f7f"),
        (255, 0x7F, 0, "7f8001"),
    ],
)
def test_integers(number: int, mask: int, flags: int, octets: str) -> None:
    """RFC 7541 appendix C.1 and the edges."""
    assert integer(number, mask, flags).hex() == octets


def test_a_line_enters_when_it_comes_again() -> None:
    both = Joined()
    blocks = [both.encoder.encode_answer(200, LINES) for _ in range(4)]
    assert [both.read(block) for block in blocks] == [
        [(b":status", b"200"), (b"content-type", b"application/json"), (b"server", b"x")]
    ] * 4
    assert blocks[0][1] == 0x0F
    assert blocks[1][1] == 0x40 | 31
    assert blocks[2] == blocks[3] == b"\x88\xbf\xbe"
    assert both.decoder.size == both.encoder._size


def test_a_request_in_any_order_of_blocks() -> None:
    both = Joined()
    for number in range(5):
        fields = both.read(
            both.encoder.encode_request(
                b"POST", b"https", b"a:1", b"/p", b"User-Agent: u\r\n", b"X-Request-Id: %d\r\n" % number
            )
        )
        assert fields == [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", b"a:1"),
            (b":path", b"/p"),
            (b"user-agent", b"u"),
            (b"x-request-id", b"%d" % number),
        ]
        assert both.read(both.encoder.encode_answer(418, LINES))[0] == (b":status", b"418")
        assert both.read(both.encoder.encode_trailers(b"Grpc-Status: 0\r\n")) == [(b"grpc-status", b"0")]
    connect = both.encoder.encode_request(b"CONNECT", b"http", b"a", b"/", b"", protocol=b"websocket")
    assert both.read(connect)[4] == (b":protocol", b"websocket")
    assert [name for name, _ in both.read(both.encoder.encode_request(b"CONNECT", b"", b"a:1", b"", b""))] == [
        b":method",
        b":authority",
    ]


def test_what_is_different_each_time_enters_no_table() -> None:
    both = Joined()
    for name in (b"Date", b"ETag", b"X-Request-Id", b"Set-Cookie", b"grpc-timeout", b"traceparent", b"Content-Length"):
        for _ in range(3):
            assert both.read(both.encoder.encode_answer(200, b"%b: x\r\n" % name))[1] == (name.lower(), b"x")
    both.read(both.encoder.encode_answer(200, LINES, b"A: b\r\n"))
    both.read(both.encoder.encode_answer(200, LINES, b"A: b\r\n"))
    assert len(both.encoder._entries) == 2


@pytest.mark.parametrize("name", [b"Authorization", b"Proxy-Authorization", b"Cookie", b"Token"])
def test_secrets_are_marked_for_all_on_the_way(name: bytes) -> None:
    """RFC 7541 section 7.1.3."""
    both = Joined()
    for _ in range(3):
        found = both.decoder.decode(
            both.encoder.encode_answer(200, b"a: b\r\n%b: x\r\n" % name, secrets=frozenset((b"token",)))
        )
        assert (found[2].name, found[2].value, found[2].is_secret) == (name.lower(), b"x", True)
        assert not found[1].is_secret
    assert all(name not in line for line in both.encoder._entries)
    assert not both.encoder._blocks


def test_the_table_grows_until_it_is_full_and_then_stays() -> None:
    both = Joined()
    first = [(b":status", b"200"), (b"first", b"x")]
    for number in range(300):
        line = b"name-%d: %b\r\n" % (number, b"v" * 50)
        for _ in range(2):
            assert both.read(both.encoder.encode_answer(200, line))[1] == (b"name-%d" % number, b"v" * 50)
        assert both.read(both.encoder.encode_answer(200, b"first: x\r\n")) == first
    assert both.encoder._size <= 4_096
    assert both.decoder.size == both.encoder._size
    assert len(both.encoder.encode_answer(200, b"first: x\r\n")) == 2 + (len(both.encoder._entries) > 64)


def test_a_table_full_of_what_comes_no_more_is_begun_anew() -> None:
    both = Joined()
    for number in range(100):
        for _ in range(2):
            both.read(both.encoder.encode_answer(200, b"name-%d: %b\r\n" % (number, b"v" * 50)))
    fields = [(b":status", b"200"), (b"content-type", b"application/json"), (b"server", b"x")]
    sizes = []
    for _ in range(600):
        block = both.encoder.encode_answer(200, LINES)
        assert both.read(block) == fields
        assert both.encoder._size in (0, both.decoder.size)
        sizes.append(len(block))
    assert sizes[400] > 20
    assert sizes[599] == 3
    assert both.encoder._size < 150


def test_a_table_is_begun_anew_between_blocks_only() -> None:
    """A request's block is made of parts: all of them are of one table."""
    both = Joined()
    for number in range(3_000):
        wanted = [
            (b":method", b"PUT"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", b"/%d" % (number // 2)),
        ]
        lines = b"x-%d: %b\r\n" % (number // 3, b"v" * 40)
        block = both.encoder.encode_request(b"PUT", b"http", b"a", b"/%d" % (number // 2), lines)
        assert both.read(block) == [*wanted, (b"x-%d" % (number // 3), b"v" * 40)]


def test_what_is_remembered_is_bounded() -> None:
    encoder = Encoder()
    for number in range(5_000):
        encoder.encode_answer(200, b"date: %d\r\n" % number)
        encoder.encode_answer(200, b"name: %d\r\n" % number)
        encoder.encode_answer(200, b"date: %b\r\n" % (b"x" * 2_000))
    assert len(encoder._blocks) <= 32
    assert len(encoder._seen) <= 64
    assert not any(len(lines) > 1_024 for lines in encoder._blocks)


def test_a_long_line_enters_no_table() -> None:
    encoder = Encoder()
    for _ in range(3):
        encoder.encode_answer(200, b"name: %b\r\n" % (b"x" * 600))
    assert not encoder._entries


@pytest.mark.parametrize("limit", [0, 40, 100, 4_095])
def test_a_peer_may_have_a_smaller_table(limit: int) -> None:
    """Section 4.2: the next block says so first; both begin anew."""
    both = Joined()
    for _ in range(3):
        both.read(both.encoder.encode_answer(200, LINES))
    both.decoder.table_bytes = limit
    both.encoder.set_limit(limit)
    both.encoder.set_limit(limit)
    for _ in range(4):
        assert both.read(both.encoder.encode_answer(200, LINES))[1:] == [
            (b"content-type", b"application/json"),
            (b"server", b"x"),
        ]
        assert both.decoder.size == both.encoder._size <= limit


def test_a_larger_table_is_not_used() -> None:
    both = Joined()
    both.encoder.set_limit(1 << 20)
    assert both.encoder.encode_answer(200, b"") == b"\x88"
    both.encoder.set_limit(100)
    both.encoder.set_limit(4_096)
    assert both.read(both.encoder.encode_answer(200, LINES))[0] == (b":status", b"200")
    assert both.encoder._limit == 100


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 300])
def test_lines_of_any_size_that_enter_no_table(size: int) -> None:
    both = Joined()
    for name in (b"Content-Length", b"x-" + b"n" * size):
        for _ in range(2):
            found = both.read(both.encoder.encode_answer(200, b"", b"%b: %b\r\n" % (name, b"v" * size)))
            assert found[1] == (name.lower(), b"v" * size)


def test_hits_are_counted() -> None:
    encoder = Encoder()
    encoder.encode_answer(200, LINES)
    encoder.encode_answer(200, LINES)
    assert (encoder.n_hits, encoder.n_spelled) == (0, 4)
    encoder.encode_answer(200, LINES)
    assert encoder.n_hits == 2
    encoder.encode_answer(200, LINES)
    assert (encoder.n_hits, encoder.n_known) == (2, 1)


def test_values_with_colons_and_without_anything() -> None:
    both = Joined()
    assert both.read(both.encoder.encode_trailers(b"A: b: c\r\nD: \r\n")) == [(b"a", b"b: c"), (b"d", b"")]
    assert Encoder().encode_answer(200, b"", b"A: b: c\r\n") == b"\x88\x00\x01a\x04b: c"


def test_a_secret_that_stands_in_the_table_is_spelled_out_all_the_same() -> None:
    """Another request had the same field, without the mark: to point at it would say that it is the same."""
    both = Joined()
    lines = b"x-token: 1\r\naccept-encoding: gzip, deflate\r\n"
    for _ in range(3):
        both.decoder.decode(both.encoder.encode_request(b"GET", b"http", b"h", b"/secret", lines))
    secrets = frozenset((b"x-token", b"accept-encoding", b":path"))
    for _ in range(2):
        found = both.decoder.decode(
            both.encoder.encode_request(b"GET", b"http", b"h", b"/secret", lines, secrets=secrets)
        )
        marked = {field.name for field in found if field.is_secret}
        assert marked == secrets
    assert not [field for field in both.decoder.decode(both.encoder.encode_answer(200, lines)) if field.is_secret]


def test_lines_that_come_again_though_they_enter_no_table() -> None:
    both = Joined()
    begin = b":method: GET\r\n:scheme: http\r\n:authority: a\r\n:path: /p\r\nX-A: 1\r\n"
    for number in range(5):
        asked = both.read(
            both.encoder.encode_head(begin, b"N: %d\r\n" % number, b"X-Forwarded-For: b\r\n", frozenset())
        )
        assert asked[:4] == [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/p")]
        assert asked[4:] == [(b"x-a", b"1"), (b"x-forwarded-for", b"b"), (b"n", b"%d" % number)]
        answered = both.read(
            both.encoder.encode_answer(200, b"", b"", aside=b"Date: now\r\nAge: %d\r\n" % (number % 2))
        )
        assert answered == [(b":status", b"200"), (b"date", b"now"), (b"age", b"%d" % (number % 2))]
    assert {line.partition(b": ")[0] for line in both.encoder._entries} == {b":authority", b":path", b"X-A"}


def test_what_is_kept_of_such_lines_is_bounded() -> None:
    both = Joined()
    for number in range(1_000):
        lines = b"N: %d\r\n" % number
        assert both.read(both.encoder.encode_answer(200, b"", aside=lines))[1] == (b"n", b"%d" % number)
        both.encoder.encode_answer(200, b"", aside=b"N: %b\r\n" % (b"x" * (1_020 + number)))
    assert 0 < len(_DICTIONARY._asides) <= 256 and max(map(len, _DICTIONARY._asides)) <= 1_024


@pytest.mark.parametrize("size", [0, 1, 126, 127, 300])
def test_fields_that_say_something_else_each_time(size: int) -> None:
    both = Joined()
    for name in (b"traceparent", b"Traceparent", b"grpc-timeout", b"ETag"):
        for _ in range(3):
            found = both.read(both.encoder.encode_answer(200, b"%b: %b\r\n" % (name, b"v" * size)))
            assert found[1] == (name.lower(), b"v" * size)
    assert not both.encoder._entries


def test_fields_that_vary_enter_no_table() -> None:
    both = Joined()
    front = b":method: GET\r\n:scheme: http\r\n:authority: h\r\n:path: /\r\nuser-agent: u\r\n"
    blocks = []
    for number in range(6):
        fields = [make_field(b"x-mine", b"%d" % number), make_field(b"x-kept", b"k"), make_field(b"empty", b"")]
        fields[0].varies = fields[2].varies = True
        tail = tail_of(H2Head([]), fields)
        assert tail is not None
        block = both.encoder.encode_varied(front, tail, True, b"Via: 2 a\r\n", b"X-Own: 1\r\n", b"Aside: 2\r\n")
        assert both.read(block) == [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"h"),
            (b":path", b"/"),
            (b"user-agent", b"u"),
            (b"x-mine", b"%d" % number),
            (b"x-kept", b"k"),
            (b"empty", b""),
            (b"via", b"2 a"),
            (b"aside", b"2"),
            (b"x-own", b"1"),
        ]
        blocks.append(block)
    assert len(blocks[4]) == len(blocks[5])
    assert both.encoder.n_spelled > 6 * 2
    assert b"\x00\x06x-mine\x015" in blocks[5], "as it came: without an index"
    assert b"x-kept" not in blocks[5] and b"x-mine" not in {field.name for field in both.decoder._ring}


def test_a_block_of_varying_fields_may_be_the_first_of_a_table() -> None:
    both = Joined()
    for _ in range(3):
        both.read(both.encoder.encode_head(b":method: GET\r\nA: b\r\n", b"", b"", NO_NAMES))
    both.encoder.set_limit(100)
    varying = make_field(b"x", b"y" * 200)
    varying.varies = True
    spelled = hpack_literal(b"\0\1x", b"y" * 200)
    for tail in (tail_of(H2Head([]), [varying]), tail_at(H2Head([]), spelled, 0)):
        assert tail is not None
        both.encoder.set_limit(both.encoder._limit - 1)
        block = both.encoder.encode_varied(b":method: GET\r\nA: b\r\n", tail, True, b"", b"", b"")
        assert block[0] == 0x20
        assert both.read(block) == [(b":method", b"GET"), (b"a", b"b"), (b"x", b"y" * 200)]


@pytest.mark.parametrize("timeouts", [0, 1])
@pytest.mark.parametrize("has_timeout", [True, False])
def test_a_tail_that_is_spelled_out_goes_on_as_any_other(timeouts: int, has_timeout: bool) -> None:
    """Among heads with other lines before it and behind, which enter the table, and are looked up by and by."""
    one, other = Joined(), Joined()
    draw = random.Random(3)
    fronts = [b":method: GET\r\n:path: /%d\r\nUser-Agent: u\r\n" % number for number in range(3)]
    behinds = [b"", b"Via: 2 a\r\n", b"Via: 2 a\r\nTe: trailers\r\n"]
    for number in range(100):
        pairs = [
            (b"x-mine", b"%d" % number),
            *[(b"grpc-timeout", b"7m")] * timeouts,
            (b"empty", b""),
            (b"y", b"z" * 200),
        ]
        draw.shuffle(pairs)
        block = b"before" + b"".join([hpack_literal(b"\0%c%b" % (len(name), name), value) for name, value in pairs])
        spelled = tail_at(H2Head([]), block, 6)
        fields = [make_field(*pair) for pair in pairs]
        for field in fields:
            field.varies = True
        told = tail_of(H2Head([]), fields)
        assert spelled is not None and told is not None
        front, behind, own = draw.choice(fronts), draw.choice(behinds), draw.choice((b"", b"X-Own: %d\r\n" % number))
        aside = draw.choice((b"", b"Aside: 2\r\n"))
        blocks = [
            both.encoder.encode_varied(front, tail, has_timeout, behind, own, aside)
            for both, tail in ((one, spelled), (other, told))
        ]
        assert blocks[0] == blocks[1]
        read = one.read(blocks[0])
        assert [pair for pair in read if pair in pairs] == [
            pair for pair in pairs if has_timeout or pair[0] != b"grpc-timeout"
        ]
        if draw.random() < 0.1:
            for both in (one, other):
                both.read(both.encoder.encode_head(b":method: GET\r\nN: %d\r\n" % (number % 7), b"", b"", NO_NAMES))
    assert one.encoder.n_spelled == other.encoder.n_spelled and one.encoder.n_known == other.encoder.n_known


OWN = (b"content-length", b"Content-Length", b"GRPC-TIMEOUT", b"grpc-timeout", b"X-Request-ID", b"x-request-id")


@pytest.mark.parametrize(
    "size", [0, 1, 126, 127, 128, 239, 254, 255, 256, 382, 383, 440, 500, 16_509, 16_510, 16_511, 70_000]
)
def test_lines_that_lbproxy_writes_itself_are_spelled_as_all_others_are(size: int) -> None:
    values = (b"1" * size, b"\t~ \xff"[: size or 1] + b"2" * size)
    for lines in [b"%b: %b\r\n" % (name, value) for name in OWN for value in values]:
        for several in (lines, lines * 3, lines + b"".join(b"%b: 7\r\n" % name for name in OWN)):
            block = _DICTIONARY.literals(several)
            assert block == _DICTIONARY._other_literals(several) != b""
    both = Joined()
    value = b"3" * size
    lines = b"".join(b"%b: %b\r\n" % (name, value) for name in OWN)
    assert both.read(_DICTIONARY.literals(lines)) == [(name.lower(), value) for name in OWN]
    assert not both.decoder.size


@pytest.mark.parametrize(
    "name",
    [b"content-lengtH", b"content-length2", b"content\rlength", b"content length", b"contents-length", b"x-request-it",
     b"y-request-id", b"x-request_id", b"Xrequest-id", b"grpc-timeouT", b"grpc-timeous", b"x", b"7grpc-timeout"],
)  # fmt: skip
def test_what_is_nearly_such_a_name_is_another_one(name: bytes) -> None:
    both = Joined()
    lines = b"content-length: 5\r\n%b: v\r\nx-request-id: 1\r\n" % name
    fields = [(field.name, field.value) for field in both.decoder.decode(_DICTIONARY.literals(lines))]
    assert fields == [(b"content-length", b"5"), (name.lower(), b"v"), (b"x-request-id", b"1")]
