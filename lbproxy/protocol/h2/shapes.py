"""Requests' heads that differ in nothing but the fields behind, as calls do of which each has a trace id of its own.

What comes before these fields is in tables, so that it is told by being the same objects: it is read once, and what was
made of it serves the next head, too. How many are remembered is bounded, and so is their length, by that of the table.

While the table is as it is, equal octets mean equal fields. So where a head and its tail changed nothing in it, the
next one that begins with the same octets is told by these, and not decoded, if its tail changes nothing, either.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import cut, has_at, i64, literal_at
from lbproxy.protocol.h2.decoder import MOST_PSEUDO, Decoder
from lbproxy.protocol.h2.fields import CONTENT_LENGTH, H2Field
from lbproxy.protocol.h2.head import H2Head, read_request
from lbproxy.protocol.h2.tail import Tail, tail_at, tail_of

_MOST: Final = 16
_MOST_BEGINS: Final = 8
_MAX_BEGIN: Final = 512
_MOST_FIELDS: Final = 64


class _Shape:
    """What many heads begin with. head: what it says, once it has come a second time. is_end: there is no body."""

    __slots__ = ("fields", "head", "is_end", "size")

    def __init__(self, fields: list[H2Field], is_end: bool) -> None:
        self.fields = fields
        self.size: i64 = len(fields)
        self.is_end = is_end
        self.head: H2Head | None = None

    def is_of(self, found: list[H2Field]) -> bool:
        """Do these, which are no fewer, begin with the same? Lengths are told by number: they enter no table."""
        at: i64 = 0
        fields = self.fields
        while at < self.size:
            one, other = fields[at], found[at]
            if one is not other and not (
                one.kind == CONTENT_LENGTH and other.kind == CONTENT_LENGTH and one.number == other.number
            ):
                return False
            at += 1
        return True


class _Begin:
    """Octets that blocks begin with. size: of them. count, total: of their fields, as a decoder counts them; hits: how
    many of these stand in tables. version: of the decoder's table with which they mean this."""

    __slots__ = ("count", "head", "hits", "is_end", "octets", "size", "total", "version")

    def __init__(self, octets: bytes, head: H2Head, is_end: bool, decoder: Decoder) -> None:
        self.octets = octets
        self.size: i64 = len(octets)
        self.head = head
        self.is_end = is_end
        self.count: i64 = decoder.front_count
        self.total: i64 = decoder.front_total
        self.hits: i64 = decoder.front_hits
        self.version = decoder.version


class Shapes:
    """Those of one connection. allows_protocol: as `read_request`."""

    __slots__ = ("_allows_protocol", "_begins", "_known", "_next", "_next_begin")

    def __init__(self, allows_protocol: bool) -> None:
        self._allows_protocol = allows_protocol
        self._known: list[_Shape] = []
        self._next: i64 = 0  # to make room
        self._begins: list[_Begin] = []
        self._next_begin: i64 = 0

    def find_at(self, block: bytes, decoder: Decoder, is_end: bool) -> Tail | None:
        """The tail of a head that begins with the same octets as one before, and is not decoded then; nothing in it
        would change the table. None: it has to be."""
        for begin in self._begins:
            if begin.version == decoder.version and begin.is_end == is_end and has_at(block, 0, begin.octets):
                tail = tail_at(begin.head, block, begin.size)
                if tail is None or not tail.count:  # the next one may be longer; what has no tail is known as a whole
                    continue
                count = begin.count + tail.count
                if count > decoder.most_fields + MOST_PSEUDO or begin.total + tail.size > decoder.most_bytes:
                    return None
                decoder.n_hits += begin.hits
                decoder.n_made += count - begin.hits
                return tail
        return None

    def learn(self, block: bytes, decoder: Decoder, tail: Tail, is_end: bool) -> None:
        """Know the octets before this tail again, of a block that was just decoded and changed nothing in the table."""
        size = decoder.front_size
        if size <= 0 or size > _MAX_BEGIN or decoder.front_count + tail.count != decoder.n_fields:
            return
        if literal_at(block, size) < 0 or tail_at(tail.front, block, size) is None:
            return  # nor would it be told by them another time
        begin = _Begin(cut(block, 0, size), tail.front, is_end, decoder)
        if len(self._begins) < _MOST_BEGINS:
            self._begins.append(begin)
        else:
            self._begins[self._next_begin] = begin
            self._next_begin = (self._next_begin + 1) % _MOST_BEGINS

    def find(self, found: list[H2Field], is_end: bool) -> Tail | None:
        """The tail of a head of these fields, if it has a shape that came before. Raises Malformed.

        No field of it may be one that its sender wants in no table.
        """
        size: i64 = len(found)
        at: i64 = 0
        while at < size:
            field = found[at]
            if field.varies and field.is_inert:
                break
            if not field.is_stored and field.kind != CONTENT_LENGTH:
                return None
            at += 1
        if at == size or at > _MOST_FIELDS:
            return None
        start = at
        while at < size:
            if not found[at].is_inert:
                return None
            at += 1
        for shape in self._known:
            if shape.size == start and shape.is_end == is_end and shape.is_of(found):
                head = shape.head
                if head is None:
                    head = shape.head = read_request(shape.fields, self._allows_protocol)
                return tail_of(head, found[start:])
        made = _Shape(found[:start], is_end)
        if len(self._known) < _MOST:
            self._known.append(made)
        else:
            self._known[self._next] = made
            self._next = (self._next + 1) % _MOST
        return None
