"""The fields of a request that differ from those of the one before, behind those that are the same (shapes.py).

They mean nothing to a gateway, but for the time-out of a call of gRPC, so that nothing is made of them before somebody
asks. Most senders spell such fields out, in the form that HPACK has for what enters no table, which says the same on
every connection. So what was checked goes on to a server of HTTP/2 as it came.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import cut, i64, literal_at, mypyc_attr
from lbproxy.protocol.deadline import GRPC_TIMEOUT, UNREADABLE, grpc_timeout_s
from lbproxy.protocol.h2.fields import NO_FIELDS, H2Field, make_field, name_at
from lbproxy.protocol.h2.head import H2Head, lines_of

_LINE: Final = 4
"""Octets of a line of HTTP/1 besides name and value."""


@mypyc_attr(free_list_len=1, acyclic=True)
class Tail:
    """Immutable by convention.

    front: what the head says before it. count, size: how many fields there are, and octets of them as lines. block,
    start: if all of them are spelled out for no table, where; else b"". timeout_at, timeout_end: the place of the field
    grpc-timeout in the block; timeout_size: octets of it as a line, 0 if there is none.
    """

    __slots__ = ("_fields", "_value", "_value_at", "_value_end", "block", "count", "front", "size", "start",
                 "timeout_at", "timeout_end", "timeout_size")  # fmt: skip

    def __init__(self, front: H2Head, block: bytes, start: i64) -> None:
        self.front = front
        self.block = block
        self.start: i64 = start
        self.count: i64 = 0
        self.size: i64 = 0
        self.timeout_at: i64 = start
        self.timeout_end: i64 = start
        self.timeout_size: i64 = 0
        self._value = block  # where the time-out stands
        self._value_at: i64 = 0
        self._value_end: i64 = 0
        self._fields = NO_FIELDS

    def read(self) -> bool:
        """What the block has from `start` to its end. False: something else than inert fields that are spelled out for
        no table, or two time-outs; then this is no tail."""
        block = self.block
        size: i64 = len(block)
        at = self.start
        while at < size:
            found = literal_at(block, at)
            if found < 0:
                return False
            value_at: i64 = found >> 16
            n_value: i64 = (found >> 8) & 0xFF
            n_name: i64 = found & 0xFF
            name = name_at(block, at + 2, n_name)
            if not name.is_inert:
                return False
            end = value_at + n_value
            n_line: i64 = n_name + n_value + _LINE
            if name.is_grpc_timeout:
                if self.timeout_size:
                    return False
                self.timeout_at, self.timeout_end, self.timeout_size = at, end, n_line
                self._value_at, self._value_end = value_at, end
            self.count += 1
            self.size += n_line
            at = end
        return True

    @property
    def timeout_s(self) -> float:
        """What grpc-timeout says, in seconds; negative if that is no time."""
        if not self.timeout_size:
            return UNREADABLE
        return grpc_timeout_s(self._value, self._value_at, self._value_end)

    @property
    def timeout_unit(self) -> int:
        """The octet of its unit, if it says a time."""
        return self._value[self._value_end - 1]

    @property
    def fields(self) -> list[H2Field]:
        """All of them."""
        if self._fields is NO_FIELDS:
            self._fields = self._spelled()
        return self._fields

    def _spelled(self) -> list[H2Field]:
        found: list[H2Field] = []
        block = self.block
        size: i64 = len(block)
        at = self.start
        while at < size:
            literal = literal_at(block, at)
            value_at: i64 = literal >> 16
            n_name: i64 = literal & 0xFF
            end: i64 = value_at + ((literal >> 8) & 0xFF)
            field = make_field(cut(block, at + 2, at + 2 + n_name), cut(block, value_at, end))
            field.varies = True
            found.append(field)
            at = end
        return found

    def sent(self, *, has_timeout: bool) -> list[H2Field]:
        """Those that go on: all of them, or without the time-out, which says something else then."""
        if has_timeout or not self.timeout_size:
            return self.fields
        return [field for field in self.fields if field.name != GRPC_TIMEOUT]

    def lines(self, *, has_timeout: bool) -> bytes:
        """The same as lines of HTTP/1."""
        return lines_of(self.sent(has_timeout=has_timeout))

    def head(self) -> H2Head:
        """The whole one, of which this is the tail."""
        return self.front.followed_by(self.fields)


def tail_of(front: H2Head, fields: list[H2Field]) -> Tail | None:
    """The same of fields that came in any form and are inert. None if there are two time-outs among them."""
    tail = Tail(front, b"", 0)
    tail._fields = fields
    for field in fields:
        tail.count += 1
        tail.size += field.size + _LINE
        if field.name == GRPC_TIMEOUT:
            if tail.timeout_size:
                return None
            tail.timeout_size = field.size + _LINE
            tail._value = field.value
            tail._value_at = 0
            tail._value_end = len(field.value)
    return tail


def tail_at(front: H2Head, block: bytes, start: i64) -> Tail | None:
    """The tail that the block has from there on, if its fields are spelled out for no table."""
    tail = Tail(front, block, start)
    return tail if tail.read() else None
