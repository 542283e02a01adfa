"""Requests' heads that differ in nothing but the fields behind, as calls do of which each has a trace id of its own.

What comes before these fields is in tables, so that it is told by being the same objects: it is read once, and what was
made of it serves the next head, too. How many are remembered is bounded, and so is their length, by that of the table.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64
from lbproxy.protocol.h2.fields import CONTENT_LENGTH, H2Field
from lbproxy.protocol.h2.head import H2Head, read_request

_MOST: Final = 16
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


class Shapes:
    """Those of one connection. allows_protocol: as `read_request`."""

    __slots__ = ("_allows_protocol", "_known", "_next")

    def __init__(self, allows_protocol: bool) -> None:
        self._allows_protocol = allows_protocol
        self._known: list[_Shape] = []
        self._next: i64 = 0  # to make room

    def find(self, found: list[H2Field], is_end: bool) -> H2Head | None:
        """What a head of these fields says, if it has a shape that came before. Raises Malformed.

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
                return head.followed_by(found[start:])
        made = _Shape(found[:start], is_end)
        if len(self._known) < _MOST:
            self._known.append(made)
        else:
            self._known[self._next] = made
            self._next = (self._next + 1) % _MOST
        return None
