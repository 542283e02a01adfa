"""The lines of a head: one pass over its octets, and what goes on as it came stays in one piece.

Most lines of a head mean nothing to a gateway. So nothing is made of them: the reader stops only at a name that is
known or odd, and lines that go on are cut out of the head together. Names are found in a table that never changes,
whatever strangers send; a near miss of a known name is another name.

Strict means: field octets only (RFC 9110 section 5.5: no control character but HTAB), CR LF at the end of each line and
nowhere else, and a token before the colon, without white space around it (RFC 9112 section 5.1). A folded line begins
with white space, which no token does. Octets are compared as such: the methods of text know more letters and digits
than HTTP does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lbproxy import errors
from lbproxy.compiling import i64, mypyc_attr
from lbproxy.errors import Fault
from lbproxy.protocol.message import Fields, join_fields, parse_length

MAX_NAME: Final = 256
"""How long a name may be in a request."""
MAX_REMEMBERED: Final = 1024
"""How many hosts or status lines a table holds. One that is full is emptied: what is met again comes back."""
NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
WHITE: Final = b" \t"
"""White space around a value (RFC 9110 section 5.6.3)."""
_UNLIMITED: Final = 1 << 30
_HTAB: Final = 9
_LF: Final = 10
_CR: Final = 13
_SPACE: Final = 32
_ZERO: Final = 48
_COLON: Final = 58
_DELETE: Final = 127
_UNDERSCORE: Final = 128
"""The bit that an underscore has in _TOKEN, and nothing else."""
END: Final = b"\r\n\r\n"
_MANY_DIGITS: Final = 18  # as many always fit

# What becomes of the octets of a token: lower case, and NUL of those that are none of one.
_TOKEN: Final = bytes(
    ord(chr(code).lower()) | (_UNDERSCORE if chr(code) == "_" else 0)
    if code < 128 and (chr(code).isalnum() or chr(code) in "!#$%&'*+-.^_`|~")
    else 0
    for code in range(256)
)
_SLOTS: Final = 1024  # as a mask, in `find`


class HeadError(Exception):
    """A head that is refused. `fault` says how; `detail` says what was wrong with this one."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class Name:
    """What is done with the fields of one name: kind (0: passes), the name in lower case, and as it is usually sent."""

    __slots__ = ("kind", "lower", "other", "usual")

    def __init__(self, kind: i64, lower: bytes, other: Name | None = None) -> None:
        self.kind = kind
        self.lower = lower
        self.usual = lower
        self.other = other  # in the same slot


PLAIN: Final = Name(0, b"")
"""Stands for all names that mean nothing."""


def begins(raw: bytes, start: i64, lower: bytes) -> bool:
    """Does a name of at least that length, of which the octets were checked, begin like this in any case?"""
    table = _TOKEN
    size: i64 = len(lower)
    at: i64 = 0
    while at < size:
        if table[raw[start + at]] != lower[at]:
            return False
        at += 1
    return True


def is_spelled(raw: bytes, start: i64, name: Name) -> bool:
    """Is this the name, of the same length, in any case?"""
    table, lower, usual = _TOKEN, name.lower, name.usual
    size: i64 = len(lower)
    at: i64 = 0
    while at < size:
        octet: i64 = raw[start + at]
        if octet != usual[at] and table[octet] != lower[at]:
            return False
        at += 1
    return True


class Names:
    """Names that mean something, by lower-case name. Fixed: nothing that is read changes it."""

    __slots__ = ("_slots",)

    def __init__(self, kinds: Mapping[bytes, int]) -> None:
        self._slots: list[Name | None] = [None] * _SLOTS
        for lower, kind in kinds.items():
            slot = sum(lower) % _SLOTS
            name = self._slots[slot] = Name(kind, lower, self._slots[slot])
            name.usual = b"-".join([part.capitalize() for part in lower.split(b"-")])

    def find(self, raw: bytes, start: i64, end: i64, total: i64) -> Name | None:
        """A name as it stands in a head, of which the octets (lower case) add up to `total`."""
        name = self._slots[total & (_SLOTS - 1)]
        while name is not None and not (len(name.lower) == end - start and is_spelled(raw, start, name)):
            name = name.other
        return name

    def judge(self, raw: bytes, start: i64, end: i64, has_underscore: bool) -> Name:
        """What is to be done with any other name. Names may be new in every head, so this must not cost much."""
        return PLAIN


@mypyc_attr(acyclic=True)
class FieldLines:
    """The field lines of one head, read one by one; `lines` is made of those that are kept.

    raw: what was read; more may stand behind the head. at: where the first field begins. fault: of a head that is
    refused. most: how many fields are read before the head is too large. size: of the head with its blank line, once
    that was found. Where `raw` ends before it, `next` raises IndexError, if it did not find another fault until there.
    """

    __slots__ = ("_colon", "_end", "_fault", "_from", "_most", "_names", "_next", "_pieces", "_raw", "_start", "count",
                 "is_plain", "size")  # fmt: skip

    def __init__(self, raw: bytes, at: i64, names: Names, fault: Fault, most: i64 = _UNLIMITED) -> None:
        self._raw = raw
        self._names = names
        self._fault = fault
        self._most = most
        self._start: i64 = at  # of the current line
        self._colon: i64 = at
        self._end: i64 = at  # of its value, before CR LF
        self._next: i64 = at
        self._from: i64 = at  # where the lines begin that are kept and not yet in _pieces
        self._pieces: list[bytes] = []
        self.count: i64 = 0
        self.size: i64 = 0
        self.is_plain = True  # is the current line `name: value` exactly as it would be sent?

    def next(self) -> Name | None:
        """The name of the next line that has to be looked at; None at the end. Raises HeadError.

        What is neither known nor odd is kept, and passed over.
        """
        raw, table, names = self._raw, _TOKEN, self._names
        at: i64 = self._next
        octet: i64
        while True:
            start = at
            total: i64 = 0
            seen: i64 = 0
            octet = table[raw[at]]
            while octet:
                total += octet
                seen |= octet
                at += 1
                octet = table[raw[at]]
            if raw[at] != _COLON or at == start:
                if at == start and raw[at] == _CR and raw[at + 1] == _LF:
                    self._start = at
                    self.size = at + 2
                    self._keep_until_here()
                    return None
                raise self._refusal("a line without a name that is a token and a colon behind it")
            colon = at
            at += 1
            octet = raw[at]
            while (octet >= _SPACE and octet != _DELETE) or octet == _HTAB:
                at += 1
                octet = raw[at]
            if octet != _CR or raw[at + 1] != _LF:
                raise self._refusal("a field has octets that HTTP does not allow")
            self.count += 1
            if self.count > self._most:
                raise self._too_many()
            is_plain = at > colon + 2 and raw[colon + 1] == _SPACE and raw[colon + 2] > _SPACE and raw[at - 1] > _SPACE
            name = names.find(raw, start, colon, total)
            if name is None:
                name = names.judge(raw, start, colon, seen >= _UNDERSCORE)
                if name.kind == 0 and is_plain:
                    at += 2
                    continue
            self._start, self._colon, self._end, self._next = start, colon, at, at + 2
            self.is_plain = is_plain
            if name.kind == 0:
                self.keep()
                at += 2
                continue
            return name

    def name(self) -> bytes:
        """Of the current line, as it was sent."""
        return self._raw[self._start : self._colon]

    def value(self) -> bytes:
        """Of the current line, without white space around it."""
        if self.is_plain:
            return self._raw[self._colon + 2 : self._end]
        return self._raw[self._colon + 1 : self._end].strip(WHITE)

    def number(self) -> i64:
        """The value as a length, -1 if it is none."""
        at: i64 = self._colon + 2
        end: i64 = self._end
        if self.is_plain and end - at <= _MANY_DIGITS:
            raw = self._raw
            number: i64 = 0
            while at < end:
                digit: i64 = raw[at] - _ZERO
                if digit < 0 or digit > 9:
                    return -1
                number = number * 10 + digit
                at += 1
            return number
        found = parse_length(self.value())
        return -1 if found is None else found

    def keep(self) -> None:
        """The current line goes on: as it is, or, with other white space, written anew."""
        if not self.is_plain:
            value = self.value()
            self.drop()
            self._pieces.append(b"%b: %b\r\n" % (self.name(), value))

    def drop(self) -> None:
        """The current line does not go on."""
        self._keep_until_here()
        self._from = self._next

    def lines(self) -> bytes:
        """What was kept, as it is sent."""
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _keep_until_here(self) -> None:
        if self._from < self._start:
            self._pieces.append(self._raw[self._from : self._start])

    def _refusal(self, detail: str) -> HeadError:
        # Too many fields is the better answer: whoever sends more has to know.
        raw = self._raw
        is_too_long = raw.count(b"\r\n", 0, raw.find(END) + len(END)) - 2 > self._most
        return self._too_many() if is_too_long else HeadError(self._fault, detail)

    def _too_many(self) -> HeadError:
        return HeadError(errors.HEADER_TOO_LARGE, f"more than {self._most} header fields")


def single_lines(lines: bytes) -> list[bytes]:
    """Whole lines, each on its own and with its CR LF."""
    return [line + b"\r\n" for line in lines.split(b"\r\n")[:-1]]


def name_of(line: bytes) -> bytes:
    """In lower case."""
    return line.partition(b":")[0].lower()


def fields_of(lines: bytes) -> Fields:
    """Name and value of lines of the form `name: value`."""
    fields: Fields = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        fields.append((name, value))
    return fields


def lines_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of such pairs."""
    return join_fields(list(fields))


def without(lines: bytes, names: frozenset[bytes]) -> bytes:
    """The lines that have none of these lower-case names."""
    return b"".join([line for line in single_lines(lines) if name_of(line) not in names])
