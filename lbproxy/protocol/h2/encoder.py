"""HPACK, encoded (RFC 7541): lines of HTTP/1 to blocks.

The table only grows. What stands in it stays at its place, counted from the first entry, and when it is full it is as
it is: so no field that is met once drives out one that is met always, and the block of lines that are known stays
valid. A line enters when it comes a second time. A table that is full of what comes no more, which shows when many
others would enter, is begun anew. What differs from request to request (ids, dates, what the gateway adds) is spelled
out and enters no table, here or there; without Huffman's code, which costs more time than it saves.

A block holds what it says about the table: it must be sent, and in the order in which blocks were made.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import hpack_literal, hpack_own, i64, join_four, spliced, value_end
from lbproxy.protocol.h2.codes import DEFAULT_TABLE_SIZE
from lbproxy.protocol.h2.fields import FLEETING, SECRET, H2Field
from lbproxy.protocol.h2.static_table import N_STATIC, NAME_INDEX, STATIC
from lbproxy.protocol.h2.tail import Tail
from lbproxy.protocol.message import NO_NAMES

_ENTRY_OVERHEAD: Final = 32
_MAX_ENTRY: Final = 512
"""Octets of an entry: a long line that comes often must not be the only one in the table."""
_MAX_SEEN: Final = 64
_MAX_TURNED_AWAY: Final = 1000
_MAX_BLOCKS: Final = 32
_MAX_BLOCK_LINES: Final = 1280
_MAX_ASIDE: Final = 1024
_MAX_SPELLED: Final = 512

_STORED: Final = 0x40
_NEVER: Final = 0x10
_MAX_NAME: Final = 64
_COLON: Final = 58
_OCTETS: Final = [bytes([octet]) for octet in range(256)]
_MAX_ASIDES: Final = 256


def integer(number: i64, mask: i64, flags: i64) -> bytes:
    """RFC 7541 section 5.1: with a prefix of as many bits as `mask` has, behind `flags`."""
    if number < mask:
        return _OCTETS[flags | number]
    octets = [flags | mask]
    number -= mask
    while number >= 0x80:
        octets.append(0x80 | (number & 0x7F))
        number >>= 7
    octets.append(number)
    return bytes(octets)


class Spelled:
    """A line, spelled out as it is if it enters no table; `entry` is empty if it never may."""

    __slots__ = ("entry", "literal", "size")

    def __init__(self, name: bytes, value: bytes, is_secret: bool) -> None:
        rest = integer(len(value), 0x7F, 0) + value
        index = NAME_INDEX.get(name, 0)
        if not index:
            rest = integer(len(name), 0x7F, 0) + name + rest
        self.size = len(name) + len(value) + _ENTRY_OVERHEAD
        self.literal = integer(index, 0x0F, _NEVER if is_secret else 0) + rest
        may_enter = not is_secret and name not in FLEETING and self.size <= _MAX_ENTRY
        self.entry = integer(index, 0x3F, _STORED) + rest if may_enter else b""


class _Dictionary:
    """How lines and names are spelled, for all connections.

    A table that is full is emptied: what is met again comes back.
    """

    __slots__ = ("_asides", "_lines", "_names")

    def __init__(self) -> None:
        self._asides: dict[bytes, bytes] = {}
        self._lines: dict[bytes, Spelled] = {}
        self._names: dict[bytes, bytes] = {}

    def aside(self, lines: bytes) -> bytes:
        """The same as `literals` of lines that come again, though they enter no table."""
        found = self._asides.get(lines)
        if found is None:
            found = self.literals(lines)
            if len(lines) <= _MAX_ASIDE:
                if len(self._asides) >= _MAX_ASIDES:
                    self._asides.clear()
                self._asides[lines] = found
        return found

    def fleeting(self, line: bytes) -> bytes:
        """How a line is spelled whose name says that it says something else each time; b"" if that is not so."""
        colon = line.find(b":", 1)
        name = line[:colon]
        begin = _FLEETING_BEGINS.get(name)
        if begin is None:
            lower = name.lower()
            if lower not in FLEETING:
                return b""
            begin = self._begin_of(lower)
        return hpack_literal(begin, line[colon + 2 :])

    def literal(self, field: H2Field) -> bytes:
        """The same of a field that enters no table."""
        begin = self._names.get(field.name)
        if begin is None:
            begin = self._begin_of(field.name)
        return hpack_literal(begin, field.value)

    def spell(self, line: bytes) -> Spelled:
        """A line `name: value`, whatever the case of the name."""
        found = self._lines.get(line)
        if found is None:
            name, _, value = line.partition(b": ")
            name = name.lower()
            found = Spelled(name, value, name in SECRET)
            if found.entry:
                if len(self._lines) >= _MAX_SPELLED:
                    self._lines.clear()
                self._lines[line] = found
        return found

    def literals(self, lines: bytes) -> bytes:
        """Lines `name: value` with CR LF that enter no table."""
        found = hpack_own(lines)
        return found if len(found) else self._other_literals(lines)

    def _other_literals(self, lines: bytes) -> bytes:
        found: list[bytes] = []
        at: i64 = 0
        size: i64 = len(lines)
        while at < size:
            start = at
            while lines[at] != _COLON:
                at += 1
            name = lines[start:at]
            known = self._names.get(name)
            begin = known if known is not None else self._begin_of(name)
            start = at + 2
            at = value_end(lines, start)
            found.append(hpack_literal(begin, lines[start:at]))
            at += 2
        return b"".join(found)

    def _begin_of(self, name: bytes) -> bytes:
        lower = name.lower()
        index = NAME_INDEX.get(lower, 0)
        begin = integer(index, 0x0F, 0) if index else b"\x00" + integer(len(lower), 0x7F, 0) + lower
        if len(name) <= _MAX_NAME:
            if len(self._names) >= _MAX_SPELLED:
                self._names.clear()
            self._names[name] = begin
        return begin


class _Last:
    """Lines that were encoded last in some place of heads, and their block, b"" for none: what comes again is mostly
    the same object, for which no table need be asked."""

    __slots__ = ("block", "lines")

    def __init__(self) -> None:
        self.lines = b""
        self.block = b""


_DICTIONARY: Final = _Dictionary()
_FLEETING_BEGINS: Final = {name: _DICTIONARY._begin_of(name) for name in FLEETING}


def _static_lines() -> dict[bytes, bytes]:
    return {
        field.name + b": " + field.value: bytes([0x80 | index + 1]) for index, field in enumerate(STATIC) if field.value
    }


_STATIC_LINES: Final = _static_lines()
_METHODS: Final = {b"GET": b"\x82", b"POST": b"\x83"}
_SCHEMES: Final = {b"http": b"\x86", b"https": b"\x87"}
_OK: Final = b"\x88"
_STATUS: Final = {code: integer(8 + at, 0x7F, 0x80) for at, code in enumerate((200, 204, 206, 304, 400, 404, 500))}


class Encoder:
    """One connection's encoding end.

    n_hits, n_spelled: lines that were looked up, and that had to be spelled out. n_known: blocks that were looked up.
    """

    __slots__ = (
        "_aside",
        "_blocks",
        "_entries",
        "_front",
        "_is_new",
        "_limit",
        "_main",
        "_n_turned_away",
        "_seen",
        "_size",
        "_trailers",
        "n_hits",
        "n_known",
        "n_spelled",
    )

    def __init__(self) -> None:
        self._entries: dict[bytes, int] = {}  # line -> number of its entry, from 0
        self._limit = DEFAULT_TABLE_SIZE
        self._size = 0
        self._seen: set[bytes] = set()
        self._n_turned_away = 0
        self._blocks: dict[bytes, bytes] = {}  # while the table is as it is: lines -> their block
        self._is_new = False  # which the peer does not know yet
        self._main, self._front, self._trailers, self._aside = _Last(), _Last(), _Last(), _Last()
        self.n_hits = 0
        self.n_known = 0
        self.n_spelled = 0

    def set_limit(self, table_bytes: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE. Below ours the table begins anew, and the next block says so.

        A larger one than ours is not needed: what is here stays valid.
        """
        limit = min(table_bytes, DEFAULT_TABLE_SIZE)
        if limit < self._limit:
            self._limit = limit
            self._begin_anew()

    def encode_answer(
        self,
        status: int,
        lines: bytes,
        own: bytes = b"",
        secrets: frozenset[bytes] = NO_NAMES,
        aside: bytes = b"",
    ) -> bytes:
        """The block of an answer's head.

        lines: `name: value` and CR LF each, without what belongs to a connection; names in any case. own, aside: lines
        that enter no table; those of `aside` are likely to come again, all of them together. secrets: lower-case names,
        besides the usual, of fields that nobody may put into a table.
        """
        known = _OK if status == 200 else _STATUS.get(status)
        if known is None:
            known = b"\x08\x03%d" % status
        return self._block(self._begun() + known if self._is_new else known, self._main, lines, own, secrets, aside)

    def encode_request(
        self,
        method: bytes,
        scheme: bytes,
        authority: bytes,
        path: bytes,
        lines: bytes,
        own: bytes = b"",
        protocol: bytes = b"",
        secrets: frozenset[bytes] = NO_NAMES,
    ) -> bytes:
        """The block of a request's head; as `encode_answer`. protocol: of extended CONNECT (RFC 8441), else empty."""
        start = self._begun() if self._is_new else b""
        known = _METHODS.get(method)
        start += known if known is not None else self._known_block(b":method: %b\r\n" % method, NO_NAMES)
        if scheme:
            known = _SCHEMES.get(scheme)
            start += known if known is not None else self._known_block(b":scheme: %b\r\n" % scheme, NO_NAMES)
        target = b":authority: %b\r\n:path: %b\r\n" % (authority, path) if path else b":authority: %b\r\n" % authority
        start += self._known_block(target, secrets)
        if protocol:
            start += self._known_block(b":protocol: %b\r\n" % protocol, NO_NAMES)
        return self._block(start, self._main, lines, own, secrets)

    def encode_head(self, lines: bytes, own: bytes, aside: bytes, secrets: frozenset[bytes]) -> bytes:
        """The block of a head of which `lines` begin with the pseudo-fields; the rest as `encode_answer`."""
        return self._block(self._begun() if self._is_new else b"", self._main, lines, own, secrets, aside)

    def encode_varied(
        self,
        front: bytes,
        tail: Tail,
        has_timeout: bool,
        behind: bytes,
        own: bytes,
        aside: bytes,
    ) -> bytes:
        """The same of a head of which the tail, between the lines `front` and `behind`, is another each time, and
        nothing is a secret.

        Fields that their sender has not put into a table enter none here. has_timeout: as Tail.sent.
        """
        begun = self._begun() if self._is_new else b""
        start = self._last_block(self._front, front, NO_NAMES)
        if len(begun):
            start = begun + start
        if len(tail.block):
            self.n_spelled += tail.count
            skip_from, skip_to = tail.start, tail.start
            if not has_timeout and tail.timeout_size:
                skip_from, skip_to = tail.timeout_at, tail.timeout_end
                self.n_spelled -= 1
            block = spliced(
                start,
                tail.block,
                tail.start,
                skip_from,
                skip_to,
                self._last_block(self._main, behind, NO_NAMES) if len(behind) else b"",
                self._aside_block(aside) if len(aside) else b"",
                _DICTIONARY.literals(own) if len(own) else b"",
            )
            if self._n_turned_away >= _MAX_TURNED_AWAY:
                self._begin_anew()
            return block
        for field in tail.sent(has_timeout=has_timeout):
            if field.varies:
                start = join_four(start, _DICTIONARY.literal(field), b"", b"")
                self.n_spelled += 1
            else:
                start = join_four(start, self._known_block(field.line, NO_NAMES), b"", b"")
        return self._block(start, self._main, behind, own, NO_NAMES, aside)

    def encode_trailers(self, lines: bytes, secrets: frozenset[bytes] = NO_NAMES) -> bytes:
        """The block of trailers; as `encode_answer`."""
        return self._block(self._begun() if self._is_new else b"", self._trailers, lines, b"", secrets)

    def _block(
        self,
        begin: bytes,
        last: _Last,
        lines: bytes,
        own: bytes,
        secrets: frozenset[bytes],
        aside: bytes = b"",
    ) -> bytes:
        """A whole one, of which the start is there. last: for such lines."""
        block = join_four(
            begin,
            self._last_block(last, lines, secrets) if len(lines) else b"",
            self._aside_block(aside) if len(aside) else b"",
            _DICTIONARY.literals(own) if len(own) else b"",
        )
        if self._n_turned_away >= _MAX_TURNED_AWAY:
            self._begin_anew()
        return block

    def _last_block(self, last: _Last, lines: bytes, secrets: frozenset[bytes]) -> bytes:
        """The same as `_known_block`."""
        if lines is last.lines and len(last.block) and not len(secrets):
            self.n_known += 1
            return last.block
        block = self._known_block(lines, secrets)
        # Only what stands in the table of blocks: it goes when that is emptied.
        last.lines, last.block = (lines, block) if not len(secrets) and self._blocks.get(lines) is block else (b"", b"")
        return block

    def _aside_block(self, lines: bytes) -> bytes:
        """Of lines that enter no table: what is known of them stays so."""
        last = self._aside
        if lines is not last.lines:
            last.lines, last.block = lines, _DICTIONARY.aside(lines)
        return last.block

    def _known_block(self, lines: bytes, secrets: frozenset[bytes]) -> bytes:
        known = self._blocks.get(lines) if not len(secrets) else None
        if known is None:
            return self._encode(lines, secrets)
        self.n_known += 1
        return known

    def _encode(self, lines: bytes, secrets: frozenset[bytes]) -> bytes:
        pieces: list[bytes] = []
        entries = self._entries
        n_before = len(entries)
        is_stable = True
        for line in lines.split(b"\r\n")[:-1]:
            if secrets and line.partition(b": ")[0].lower() in secrets:  # first: another may have put it into the table
                name, _, value = line.partition(b": ")
                pieces.append(Spelled(name.lower(), value, True).literal)
                self.n_spelled += 1
                continue
            short = _STATIC_LINES.get(line)
            if short is not None:
                self.n_hits += 1
                pieces.append(short)
                continue
            number = entries.get(line, -1)
            if number >= 0:
                self.n_hits += 1
                index = N_STATIC + len(entries) - number
                pieces.append(_OCTETS[0x80 | index] if index < 0x7F else integer(index, 0x7F, 0x80))
                continue
            self.n_spelled += 1
            literal = _DICTIONARY.fleeting(line)
            if literal:
                pieces.append(literal)
                continue
            spelled = _DICTIONARY.spell(line)
            if not spelled.entry:
                pieces.append(spelled.literal)
            elif line not in self._seen:
                is_stable = False
                if len(self._seen) >= _MAX_SEEN:
                    self._seen.clear()
                self._seen.add(line)
                pieces.append(spelled.literal)
            elif self._size + spelled.size <= self._limit:
                self._seen.discard(line)
                entries[line] = len(entries)
                self._size += spelled.size
                pieces.append(spelled.entry)
            else:
                is_stable = False
                self._n_turned_away += 1
                pieces.append(spelled.literal)
        block = b"".join(pieces)
        if len(entries) != n_before:
            self._forget_blocks()
        elif is_stable and not secrets and len(lines) <= _MAX_BLOCK_LINES:
            if len(self._blocks) >= _MAX_BLOCKS:
                self._forget_blocks()
            self._blocks[lines] = block
        return block

    def _forget_blocks(self) -> None:
        self._blocks.clear()
        for last in (self._main, self._front, self._trailers):
            last.lines = last.block = b""

    def _begin_anew(self) -> None:
        """With an empty table, of which the next block tells."""
        self._entries.clear()
        self._forget_blocks()
        self._seen.clear()
        self._size = 0
        self._n_turned_away = 0
        self._is_new = True

    def _begun(self) -> bytes:
        """How a block begins that is the first of a table (RFC 7541 section 4.2).

        The table's size becomes nothing first, which makes the peer forget its entries.
        """
        self._is_new = False
        return b"\x20" if not self._limit else b"\x20" + integer(self._limit, 0x1F, 0x20)
