"""Heads that differ in nothing but what is behind."""

from __future__ import annotations

import random

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from lbproxy.protocol.h2.decoder import Decoder
from lbproxy.protocol.h2.encoder import integer
from lbproxy.protocol.h2.head import Malformed, read_request
from lbproxy.protocol.h2.shapes import _MOST, _MOST_BEGINS, Shapes
from lbproxy.protocol.h2.tail import Tail

Pair = tuple[bytes, bytes]
START = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/a")]
STORED, LITERAL, NEVER = 0x40, 0x00, 0x10


class Reader:
    """Blocks of a peer that puts fields into its table, or not, as it is told."""

    def __init__(self) -> None:
        self.decoder = Decoder(100, 1 << 16)
        self.shapes = Shapes(False)
        self._table: list[Pair] = []

    def block(self, stored: list[Pair], *literals: Pair, how: int = LITERAL) -> bytes:
        pieces = []
        for pair in stored:
            if pair in self._table:
                pieces.append(integer(62 + self._table.index(pair), 0x7F, 0x80))
            else:
                self._table.insert(0, pair)
                pieces.append(spelled(pair, STORED))
        return b"".join([*pieces, *[spelled(pair, how) for pair in literals]])

    def find(self, stored: list[Pair], *literals: Pair, how: int = LITERAL, is_end: bool = True) -> Tail | None:
        return self.shapes.find(self.decoder.decode(self.block(stored, *literals, how=how)), is_end)


def spelled(pair: Pair, how: int) -> bytes:
    return bytes([how]) + b"".join([integer(len(text), 0x7F, 0) + text for text in pair])


def trace(number: int) -> Pair:
    return b"traceparent", b"00-%d" % number


def test_what_comes_again_is_read_once() -> None:
    reader = Reader()
    stored = [*START, (b"user-agent", b"u")]
    tails = [reader.find(stored, trace(number), (b"x-mine", b"%d" % number)) for number in range(5)]
    second, fifth = tails[1], tails[4]
    assert tails[0] is None and second is not None and fifth is not None
    assert second.front is fifth.front
    assert [field.value for field in fifth.fields] == [b"00-4", b"4"]
    assert fifth.head().lines == b"user-agent: u\r\ntraceparent: 00-4\r\nx-mine: 4\r\n"
    assert fifth.front.lines == b"user-agent: u\r\n"


def test_a_head_of_a_shape_is_the_same_as_any_other() -> None:
    reader = Reader()
    stored = [
        *START,
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"cookie", b"a"),
        (b"cookie", b"b"),
    ]
    for number in range(4):
        found = reader.decoder.decode(reader.block(stored, trace(number)))
        tail, plain = reader.shapes.find(found, False), read_request(found, False)
    assert tail is not None
    head = tail.head()
    names = [name for name in dir(plain) if not name.startswith("_") and name != "fields"]
    names = [name for name in names if not callable(getattr(plain, name))]
    assert {name: getattr(head, name) for name in names} == {name: getattr(plain, name) for name in names}
    assert head.lines == plain.lines


@pytest.mark.parametrize(
    "behind",
    [
        (b"user-agent", b"u"),
        (b"referer", b"r"),
        (b"authorization", b"Basic eA=="),
        (b"cookie", b"c"),
        (b"host", b"h"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"expect", b"100-continue"),
        (b"content-length", b"0"),
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"x-request-id", b"1"),
        (b"a_b", b"1"),
        (b"via", b"1.1 x"),
        (b"max-forwards", b"1"),
        (b"connection", b"x"),
        (b"A", b"upper case"),
        (b"a", b" white space"),
        (b":late", b"1"),
    ],
)
def test_what_means_something_is_in_no_tail(behind: Pair) -> None:
    reader = Reader()
    for number in range(4):
        assert reader.find(START, trace(number), behind) is None


def test_what_nobody_may_put_into_a_table_is_in_no_tail() -> None:
    reader = Reader()
    for number in range(4):
        assert reader.find(START, (b"x-token", b"%d" % number), how=NEVER) is None


def test_what_is_spelled_out_before_the_tail_is_not_remembered() -> None:
    reader = Reader()
    for number in range(4):
        assert reader.find(START[:3], (b":path", b"/%d" % number), trace(number)) is None
    assert reader.shapes._known == []


def test_a_head_without_a_tail_has_no_shape() -> None:
    reader = Reader()
    for _ in range(4):
        assert reader.find(START) is None
    assert reader.shapes._known == []


def test_lengths_are_told_by_their_numbers() -> None:
    reader = Reader()
    lengths = [5, 5, 5, 6, 6, 5]
    tails = [reader.find(START, (b"content-length", b"%d" % length), trace(1), is_end=False) for length in lengths]
    assert [tail.front.content_length if tail is not None else None for tail in tails] == [None, 5, 5, None, 6, 5]


def test_with_and_without_a_body_are_two_shapes() -> None:
    reader = Reader()
    for _ in range(3):
        tail = reader.find(START, trace(1), is_end=True)
    assert tail is not None and reader.find(START, trace(1), is_end=False) is None
    other = reader.find(START, trace(1), is_end=False)
    assert other is not None and other.front is not tail.front


def test_what_is_malformed_stays_so() -> None:
    reader = Reader()
    assert reader.find(START[:2], trace(1)) is None
    for _ in range(2):
        with pytest.raises(Malformed, match="there is no :path"):
            reader.find(START[:2], trace(1))


def test_how_many_are_remembered_is_bounded() -> None:
    reader = Reader()
    for number in range(3 * _MOST):
        for _ in range(3):
            tail = reader.find([*START[:3], (b":path", b"/%d" % number)], trace(1))
        assert tail is not None and tail.front.path == b"/%d" % number
    assert len(reader.shapes._known) == _MOST


# --- by their octets ------------------------------------------------------------------------------------------------


class Octets(Reader):
    """The same by way of octets where that can be, as a connection asks; `told` is how often it could."""

    def __init__(self, most_fields: int = 100, most_bytes: int = 1 << 16) -> None:
        super().__init__()
        self.decoder = Decoder(most_fields, most_bytes)
        self.told = 0

    def tail(self, block: bytes, *, is_end: bool = True) -> Tail | None:
        tail = self.shapes.find_at(block, self.decoder, is_end)
        if tail is not None:
            self.told += 1
            return tail
        before = self.decoder.version
        found = self.decoder.decode(block)
        tail = self.shapes.find(found, is_end) if found else None
        if tail is not None and self.decoder.version == before:
            self.shapes.learn(block, self.decoder, tail, is_end)
        return tail


def test_octets_that_come_again_are_not_decoded() -> None:
    reader, plain = Octets(), Octets()
    stored = [*START, (b"user-agent", b"u")]
    for number in range(20):
        block = reader.block(stored, (b"content-length", b"7"), trace(number), (b"x-mine", b"%d" % number))
        tail = reader.tail(block)
        other = plain.shapes.find(plain.decoder.decode(block), True)
        assert (tail is None) == (other is None)
        if tail is not None and other is not None:
            one, two = tail.head(), other.head()
            assert (one.lines, one.content_length, one.path) == (two.lines, two.content_length, two.path)
            assert [(field.line, field.varies) for field in tail.fields] == [
                (field.line, field.varies) for field in other.fields
            ]
            assert (tail.count, tail.size) == (other.count, other.size)
        assert (reader.decoder.n_hits, reader.decoder.n_made) == (plain.decoder.n_hits, plain.decoder.n_made)
    assert reader.told == 18


def test_octets_mean_something_else_when_the_table_has_changed() -> None:
    reader = Octets()
    for number in range(5):
        tail = reader.tail(reader.block(START, trace(number)))
    assert reader.told == 3 and tail is not None and tail.front.path == b"/a"
    block = reader.block(START, trace(9))
    reader.decoder.decode(spelled((b":path", b"/b"), STORED) + spelled((b":authority", b"o"), STORED))
    reader._table[:0] = [(b":authority", b"o"), (b":path", b"/b")]
    with pytest.raises(Malformed):
        reader.tail(block)
        reader.tail(block)
    for number in range(5):
        tail = reader.tail(reader.block(START, trace(number)))
    assert tail is not None and tail.front.path == b"/a" and reader.told > 3


@pytest.mark.parametrize(
    "end",
    [
        spelled((b"content-length", b"7"), LITERAL),
        spelled((b"x", b"y"), STORED),
        spelled((b"x", b"y"), NEVER),
        b"\x82",
        b"\x20",
        spelled((b"A", b"y"), LITERAL),
        spelled((b"x", b"y\0"), LITERAL),
        spelled((b"x", b" y"), LITERAL),
        b"\0\1x\x81\x07",
        b"\0\x81\xf3\1y",
        b"\0\1x\5y",
        b"\0\1",
        b"\0",
        spelled((b"grpc-timeout", b"1S"), LITERAL) * 2,
        spelled((b"x" * 65, b"y"), LITERAL),
        spelled((b"x", b"y" * 255), LITERAL),
    ],
)
def test_tails_of_another_kind_are_decoded(end: bytes) -> None:
    reader = Octets()
    for number in range(4):
        reader.tail(reader.block(START, trace(number)))
    assert reader.told == 2
    version, size = reader.decoder.version, reader.decoder.size
    assert reader.shapes.find_at(reader.block(START, trace(9)) + end, reader.decoder, True) is None
    assert (reader.decoder.version, reader.decoder.size) == (version, size)


def test_what_is_too_much_is_for_the_decoder() -> None:
    for most_fields, most_bytes in ((2, 1 << 16), (100, 110)):
        reader = Octets(most_fields, most_bytes)
        for number in range(3):
            reader.tail(reader.block(START, trace(number)))
        assert reader.told == 1
        many = [(b"x", b"%d" % number) for number in range(10)]
        assert reader.tail(reader.block(START, *many)) is None and reader.decoder.excess


def test_a_request_without_a_body_is_another_one_by_its_octets_too() -> None:
    reader = Octets()
    for number in range(4):
        one = reader.tail(reader.block(START, trace(number)), is_end=True)
        other = reader.tail(reader.block(START, trace(number)), is_end=False)
    assert one is not None and other is not None and one.front is not other.front and reader.told == 4


def test_how_many_octets_are_remembered_is_bounded() -> None:
    reader = Octets()
    for number in range(3 * _MOST_BEGINS):
        for _ in range(4):
            reader.tail(reader.block([*START, (b"x-kept", b"%d" % number)], trace(1)))
    assert len(reader.shapes._begins) == _MOST_BEGINS
    for _ in range(4):
        reader.tail(reader.block([*START, (b"x-kept", b"k" * 600)], trace(1)))
    assert max(begin.size for begin in reader.shapes._begins) <= 512


def test_what_would_not_be_told_by_octets_is_not_remembered_by_them() -> None:
    reader = Octets()
    tails = [reader.tail(reader.block(START, trace(number)) + b"\0\1x\x81\x07") for number in range(9)]
    assert None not in tails[1:]
    assert reader.told == 0 and reader.shapes._begins == []


def test_heads_are_the_same_whether_they_are_told_by_octets_or_read() -> None:
    """Of a peer that stores some fields, spells out others, in Huffman's code or not, and changes its table's size."""
    draw = random.Random(12)
    huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    names = [b"traceparent", b"x-mine", b"grpc-timeout", b"x", b"y", b"z" * 70]
    n_told = 0
    for _ in range(60):
        told, plain = Octets(12, 400), Decoder(12, 400)
        stores, odd = draw.choice(((0.0, 0.0), (0.0, 0.1), (0.02, 0.02), (0.3, 0.1)))
        for _ in range(60):
            stored = [*START[:3], (b":path", b"/%d" % draw.randrange(2)), (b"te", b"trailers")]
            block = b""
            if draw.random() < odd / 10:
                block = b"\x20\x3f\xe1\x1f"
                told._table.clear()
            block += told.block(stored[: 5 if draw.random() < 0.9 else 4])
            if draw.random() < 0.3:
                block += spelled((b"content-length", b"%d" % draw.choice((7, 8))), LITERAL)
            for name in draw.sample(names[:5], draw.randrange(4)) + names[5:] * (draw.random() < odd):
                value = draw.choice((b"", b"1S", b"2m", b"v" * draw.randrange(300), b"\xe9\t~"))
                if draw.random() < stores:
                    block += spelled((name, value), STORED)
                    told._table.insert(0, (name, value))
                elif draw.random() < odd:
                    code = huffman.encode(value)
                    block += spelled((name, b""), LITERAL)[:-1] + integer(len(code), 0x7F, 0x80) + code
                else:
                    block += spelled((name, value), NEVER if draw.random() < odd / 10 else LITERAL)
            tail, read = told.tail(block), plain.decode(block)
            assert (told.decoder.version, told.decoder.size) == (plain.version, plain.size)
            assert (told.decoder.n_hits, told.decoder.n_made) == (plain.n_hits, plain.n_made)
            if plain.excess:
                assert tail is None
            elif tail is not None:
                head, other = tail.head(), read_request(read, False)
                assert (head.lines, head.path, head.content_length) == (other.lines, other.path, other.content_length)
                assert [(one.line, one.varies, one.is_inert) for one in head.fields] == [
                    (one.line, one.varies, one.is_inert) for one in other.fields
                ]
        n_told += told.told
    assert n_told > 500
