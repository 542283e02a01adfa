"""Heads that differ in nothing but what is behind."""

from __future__ import annotations

import pytest

from lbproxy.protocol.h2.decoder import Decoder
from lbproxy.protocol.h2.encoder import integer
from lbproxy.protocol.h2.head import H2Head, Malformed, read_request
from lbproxy.protocol.h2.shapes import _MOST, Shapes

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

    def find(self, stored: list[Pair], *literals: Pair, how: int = LITERAL, is_end: bool = True) -> H2Head | None:
        return self.shapes.find(self.decoder.decode(self.block(stored, *literals, how=how)), is_end)


def spelled(pair: Pair, how: int) -> bytes:
    return bytes([how]) + b"".join([integer(len(text), 0x7F, 0) + text for text in pair])


def trace(number: int) -> Pair:
    return b"traceparent", b"00-%d" % number


def test_what_comes_again_is_read_once() -> None:
    reader = Reader()
    stored = [*START, (b"user-agent", b"u")]
    heads = [reader.find(stored, trace(number), (b"x-mine", b"%d" % number)) for number in range(5)]
    second, fifth = heads[1], heads[4]
    assert heads[0] is None and second is not None and fifth is not None
    assert second.shape is fifth.shape is not None
    assert [field.value for field in fifth.behind] == [b"00-4", b"4"]
    assert fifth.lines == b"user-agent: u\r\ntraceparent: 00-4\r\nx-mine: 4\r\n"
    assert fifth.shape.lines == b"user-agent: u\r\n"


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
        head, plain = reader.shapes.find(found, False), read_request(found, False)
    assert head is not None
    names = [name for name in dir(plain) if not name.startswith("_") and name not in ("shape", "behind", "fields")]
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
    heads = [reader.find(START, (b"content-length", b"%d" % length), trace(1), is_end=False) for length in lengths]
    assert [head.content_length if head is not None else None for head in heads] == [None, 5, 5, None, 6, 5]


def test_with_and_without_a_body_are_two_shapes() -> None:
    reader = Reader()
    for _ in range(3):
        head = reader.find(START, trace(1), is_end=True)
    assert head is not None and reader.find(START, trace(1), is_end=False) is None
    other = reader.find(START, trace(1), is_end=False)
    assert other is not None and other.shape is not head.shape


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
            head = reader.find([*START[:3], (b":path", b"/%d" % number)], trace(1))
        assert head is not None and head.path == b"/%d" % number
    assert len(reader.shapes._known) == _MOST
