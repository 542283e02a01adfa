"""HPACK, decoded (RFC 7541): a block of octets to fields, which are checked once and then looked up.

The table is a ring. What a peer can make of it is bounded by its size in octets, the list by a count and a number of
octets that hold while it is made: one octet of a block can stand for four thousand of a list. A block that says too
much is read to its end all the same, because the table has to follow; but nothing of it is kept.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import cut, i64
from lbproxy.protocol.h2 import huffman
from lbproxy.protocol.h2.codes import DEFAULT_TABLE_SIZE
from lbproxy.protocol.h2.fields import H2Field, make_field
from lbproxy.protocol.h2.huffman import HuffmanError
from lbproxy.protocol.h2.static_table import N_STATIC, STATIC

_ENTRY_OVERHEAD: Final = 32
"""Octets that an entry counts for besides its name and value (RFC 7541 section 4.1)."""
MOST_PSEUDO: Final = 4
"""Fields of a request that are its start line in HTTP/1, or Host, and do not count."""
_LINE_OVERHEAD: Final = 4
"""Octets of a line of HTTP/1 besides: colon, space, CR, LF. So a limit means the same in both versions."""
_MAX_SHIFT: Final = 28
_MAX_UPDATES: Final = 2
"""Changes of the table's size before a block: the smallest size since the last block, and the last (section 4.2)."""


class HpackError(Exception):
    """A block that cannot be decoded: a connection error COMPRESSION_ERROR (RFC 9113 section 4.3)."""


class Decoder:
    """One connection's decoding end.

    table_bytes: the most that the peer may have its table grow to: our SETTINGS_HEADER_TABLE_SIZE. most_fields,
    most_bytes: the bounds of a list, the second in octets of lines as HTTP/1 has them. excess: what of the last block
    was too much, or empty. n_fields: how many it had. front_size: its octets before the first inert field that is in no
    table, -1 if there is none; front_count, front_total, front_hits: how many fields these are, octets of them as
    lines, and how many of them were looked up. n_hits, n_made: fields that were looked up, and that had to be made, so
    far. version: changes with the table; while it is the same, equal blocks mean equal lists.
    """

    __slots__ = ("_at", "_block", "_count", "_first", "_mask", "_ring", "_table_limit", "excess", "front_count",
                 "front_hits", "front_size", "front_total", "has_secrets", "most_bytes", "most_fields", "n_fields",
                 "n_hits", "n_made", "size", "table_bytes", "version")  # fmt: skip

    def __init__(self, most_fields: int, most_bytes: int, table_bytes: int = DEFAULT_TABLE_SIZE) -> None:
        self.most_fields: i64 = most_fields
        self.most_bytes: i64 = most_bytes
        self.table_bytes: i64 = table_bytes
        self._table_limit: i64 = table_bytes  # as the peer has set it
        slots = 1
        while slots * _ENTRY_OVERHEAD < table_bytes:
            slots *= 2
        self._ring: list[H2Field] = [STATIC[0]] * slots
        self._mask: i64 = slots - 1
        self._first: i64 = 0  # the slot of the youngest
        self._count: i64 = 0
        self.size: i64 = 0
        self._block = b""
        self._at: i64 = 0
        self.excess = ""
        self.has_secrets = False
        self.n_fields: i64 = 0
        self.front_size: i64 = -1
        self.front_count: i64 = 0
        self.front_total: i64 = 0
        self.front_hits: i64 = 0
        self.version = 0
        self.n_hits = 0
        self.n_made = 0

    def decode(self, block: bytes) -> list[H2Field]:
        """The fields in order, BAD ones too; [] with `excess` if there are too many. Raises HpackError."""
        self._block = block
        self._at = 0
        self.excess = ""
        self.has_secrets = False
        try:
            return self._fields(block)
        except IndexError as error:
            raise HpackError("a field block ends within a field") from error
        except HuffmanError as no_code:
            raise HpackError(str(no_code)) from no_code
        finally:
            self._block = b""

    def _fields(self, block: bytes) -> list[H2Field]:
        found: list[H2Field] = []
        end: i64 = len(block)
        total: i64 = 0
        count: i64 = 0
        hits: i64 = 0
        self.front_size = -1
        static = STATIC
        ring = self._ring
        self._read_updates(block)
        while self._at < end:
            octet: i64 = block[self._at]
            if octet >= 0x80:
                index: i64 = octet & 0x7F
                if index == 0x7F:
                    index = self._integer(0x7F)
                else:
                    self._at += 1
                hits += 1
                if 0 < index <= N_STATIC:
                    field = static[index - 1]
                else:
                    index -= N_STATIC + 1
                    if index < 0 or index >= self._count:
                        raise HpackError("an index is beyond the table")
                    field = ring[(self._first - index) & self._mask]
            elif octet >= 0x20 and octet < 0x40:
                raise HpackError("the table's size changes within a block")
            else:
                before = self._at
                field = self._literal(octet)
                if octet < 0x10 and field.is_inert and self.front_size < 0:
                    self.front_size, self.front_count, self.front_total, self.front_hits = before, count, total, hits
            count += 1
            total += field.size + _LINE_OVERHEAD
            if count > self.most_fields + MOST_PSEUDO or total > self.most_bytes:
                if not self.excess:
                    self.excess = self._too_much(count)
                    found = []
            else:
                found.append(field)
        self.n_fields = count
        self.n_hits += hits
        return found

    def _too_much(self, count: i64) -> str:
        if count > self.most_fields + MOST_PSEUDO:
            return f"more than {self.most_fields} header fields"
        return f"more than {self.most_bytes} bytes of header fields"

    def _read_updates(self, block: bytes) -> None:
        """Changes of the table's size, which stand before the first field (RFC 7541 section 4.2)."""
        end: i64 = len(block)
        updates: i64 = 0
        while self._at < end:
            octet: i64 = block[self._at]
            if octet < 0x20 or octet >= 0x40:
                return
            updates += 1
            size = self._integer(0x1F)
            if size > self.table_bytes:
                raise HpackError("the table's size is above SETTINGS_HEADER_TABLE_SIZE")
            if updates > _MAX_UPDATES:
                raise HpackError("the table's size changes more than twice before a block")
            self._table_limit = size
            self.version += 1
            self._evict(0)

    def _literal(self, octet: i64) -> H2Field:
        """A field that is spelled out (RFC 7541 section 6.2), and stored if it says so."""
        is_stored = octet >= 0x40
        mask: i64 = 0x3F if is_stored else 0x0F
        index: i64 = octet & mask
        if index == mask:
            index = self._integer(mask)
        else:
            self._at += 1
        is_secret = not is_stored and octet >= 0x10
        if is_secret:
            self.has_secrets = True
        if not index:
            field = make_field(self._string(), self._string(), -1, is_secret)
        else:
            named = self._entry(index)
            field = make_field(named.name, self._string(), named.name_kind, is_secret)
        self.n_made += 1
        if is_stored:
            self._store(field)
        elif field.is_inert:
            field.varies = True
        return field

    def _entry(self, index: i64) -> H2Field:
        if index <= N_STATIC:
            return STATIC[index - 1]
        index -= N_STATIC + 1
        if index >= self._count:
            raise HpackError("an index is beyond the table")
        return self._ring[(self._first - index) & self._mask]

    def _integer(self, mask: i64) -> i64:
        """RFC 7541 section 5.1, where its prefix stands; at most 2^31 - 1 or so, in six octets."""
        block = self._block
        at: i64 = self._at
        number: i64 = block[at] & mask
        at += 1
        if number == mask:
            shift: i64 = 0
            octet: i64 = 0x80
            while octet >= 0x80:
                if shift > _MAX_SHIFT:
                    raise HpackError("an integer is too large")
                octet = block[at]
                at += 1
                number += (octet & 0x7F) << shift
                shift += 7
        self._at = at
        return number

    def _string(self) -> bytes:
        """RFC 7541 section 5.2, where its length stands."""
        block = self._block
        octet: i64 = block[self._at]
        size: i64 = octet & 0x7F
        if size == 0x7F:
            size = self._integer(0x7F)
        else:
            self._at += 1
        start = self._at
        end: i64 = start + size
        if end > len(block):
            raise HpackError("a string is longer than its field block")
        self._at = end
        return huffman.decode(block, start, end) if octet >= 0x80 else cut(block, start, end)

    def _store(self, field: H2Field) -> None:
        """RFC 7541 section 4.4: what is larger than the table empties it, and is no error."""
        size: i64 = field.size + _ENTRY_OVERHEAD
        self.version += 1
        self._evict(size)
        if size <= self._table_limit:
            self._first = (self._first + 1) & self._mask
            self._ring[self._first] = field
            field.is_stored = True
            self._count += 1
            self.size += size

    def _evict(self, needed: i64) -> None:
        """The oldest go until so many octets are free, or nothing is left."""
        empty = STATIC[0]
        while self._count and self.size + needed > self._table_limit:
            self._count -= 1
            slot: i64 = (self._first - self._count) & self._mask
            self.size -= self._ring[slot].size + _ENTRY_OVERHEAD
            self._ring[slot] = empty
