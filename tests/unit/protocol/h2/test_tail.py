"""Fields behind what many heads have in common, as they came."""

from __future__ import annotations

import random

import pytest

from lbproxy.compiling import hpack_literal
from lbproxy.protocol.deadline import parse_timeout
from lbproxy.protocol.h2.decoder import Decoder
from lbproxy.protocol.h2.fields import make_field
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.tail import Tail, tail_at, tail_of

Pair = tuple[bytes, bytes]
FRONT = H2Head([make_field(b"user-agent", b"u")])
TRACE = (b"traceparent", b"00-1-2-01")


def spelled(*pairs: Pair) -> bytes:
    return b"".join([hpack_literal(b"\0%c%b" % (len(name), name), value) for name, value in pairs])


def both(*pairs: Pair) -> list[Tail]:
    """In a block, and as fields."""
    tails = [tail_at(FRONT, b"front" + spelled(*pairs), 5), tail_of(FRONT, [make_field(*pair) for pair in pairs])]
    assert None not in tails
    return [tail for tail in tails if tail is not None]


def test_its_fields_are_made_when_somebody_asks() -> None:
    for tail in both(TRACE, (b"grpc-timeout", b"250m"), (b"x", b"")):
        assert tail.count == 3 and tail.size == sum(len(field.line) for field in tail.fields)
        assert [field.name for field in tail.fields] == [b"traceparent", b"grpc-timeout", b"x"]
        assert tail.fields is tail.fields
        assert tail.lines(has_timeout=True) == b"traceparent: 00-1-2-01\r\ngrpc-timeout: 250m\r\nx: \r\n"
        assert tail.lines(has_timeout=False) == b"traceparent: 00-1-2-01\r\nx: \r\n"
        assert tail.head().lines == b"user-agent: u\r\n" + tail.lines(has_timeout=True)
        assert FRONT.lines == b"user-agent: u\r\n"


VALUES = [b"1S", b"250m", b"99999999n", b"0u", b"7H", b"07M", b"", b"m", b"1", b"1s", b"1x", b"999999999m", b"-1m",
          b"1 m", b"1.5S", b"\xb2m", b"1ms"]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_the_time_out_is_what_it_is_elsewhere(value: bytes) -> None:
    parsed = parse_timeout(b"grpc-timeout", value)
    for tail in both(TRACE, (b"grpc-timeout", value)):
        assert tail.timeout_size == len(b"grpc-timeout: %b\r\n" % value)
        if parsed is None:
            assert tail.timeout_s < 0.0
        else:
            assert (tail.timeout_s, bytes([tail.timeout_unit])) == parsed


def test_without_a_time_out() -> None:
    for tail in both(TRACE):
        assert tail.timeout_s < 0.0 and not tail.timeout_size
        assert tail.lines(has_timeout=False) == tail.lines(has_timeout=True) == b"traceparent: 00-1-2-01\r\n"


def test_two_time_outs_are_none() -> None:
    two = [(b"grpc-timeout", b"1S"), TRACE, (b"grpc-timeout", b"1S")]
    assert tail_of(FRONT, [make_field(*pair) for pair in two]) is None
    assert tail_at(FRONT, spelled(*two), 0) is None


def test_nothing_behind_the_front_is_a_tail_of_nothing() -> None:
    tail = tail_at(FRONT, b"front", 5)
    assert tail is not None and tail.count == tail.size == 0 and tail.fields == []


def test_what_is_read_of_a_block_is_what_a_decoder_reads() -> None:
    """Any octets, most of them nearly right: what is a tail decodes to the same fields, and is good in each of them."""
    draw = random.Random(11)
    n_good = 0
    for _ in range(20_000):
        pairs = [
            (
                draw.choice((b"traceparent", b"x", b"x" * 64, b"x" * 65, b"grpc-timeout", b"te", b":path", b"A", b"")),
                draw.choice(
                    (b"", b"v", b"1S", b" v", b"v\t", b"a\tb", b"\xff" * 126, b"v" * 127, b"v" * 254, b"v" * 255)
                ),
            )
            for _ in range(draw.randrange(4))
        ]
        octets = bytearray(spelled(*pairs))
        if octets and draw.random() < 0.5:
            octets[draw.randrange(len(octets))] = draw.choice((0, 1, 0x0F, 0x10, 0x40, 0x7F, 0x80, 0xFF, 0x20))
        block = bytes(octets[: draw.randrange(len(octets) + 1)] if draw.random() < 0.2 else octets)
        tail = tail_at(FRONT, block, 0)
        if tail is None:
            continue
        n_good += 1
        decoder = Decoder(1000, 1 << 20)
        found = decoder.decode(block)
        assert not decoder.size and all(field.is_inert and not field.is_secret and not field.why for field in found)
        assert [(field.line, field.varies) for field in tail.fields] == [(field.line, True) for field in found]
        assert tail.count == len(found) and tail.size == sum(len(field.line) for field in found)
        rest = block[tail.start : tail.timeout_at] + block[tail.timeout_end :]
        if tail.timeout_size:
            assert [field.line for field in decoder.decode(rest)] == [
                field.line for field in found if field.name != b"grpc-timeout"
            ]
    assert n_good > 2_000
