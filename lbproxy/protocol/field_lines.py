"""The lines of a head: one pass over its octets, and what goes on as it came stays in one piece.

Most lines of a head mean nothing to a gateway. So nothing is made of them: the reader stops only at a name that is
known or odd, and lines that go on are cut out of the head together. Names are found in tables that never change,
whatever strangers send; a near miss of a known name is another name. One of the tables has names as most send them,
which are told by comparing eight octets at once; any other name is read octet by octet, and found in any case.

Strict means: field octets only (RFC 9110 section 5.5: no control character but HTAB), CR LF at the end of each line and
nowhere else, and a token before the colon, without white space around it (RFC 9112 section 5.1). A folded line begins
with white space, which no token does. Octets are compared as such: the methods of text know more letters and digits
than HTTP does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

from lbproxy import errors
from lbproxy.compiling import (
    cut,
    cut_three,
    has_at,
    i64,
    line_end,
    mypyc_attr,
    passed,
    text_of,
    token_at,
    word_at,
)
from lbproxy.errors import Fault
from lbproxy.protocol.message import KEEP_ALIVE, Fields, connection_options, join_fields, parse_length

MAX_NAME: Final = 256
"""How long a name may be in a request."""
MAX_REMEMBERED: Final = 1024
"""How many hosts or status lines a table holds. One that is full is emptied: what is met again comes back."""
NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
WHITE: Final = b" \t"
"""White space around a value (RFC 9110 section 5.6.3)."""
_UNLIMITED: Final = 1 << 30
_LF: Final = 10
_CR: Final = 13
_SPACE: Final = 32
_ZERO: Final = 48
_COLON: Final = 58
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
_SLOTS: Final = 1024  # as a mask, in `find`; its bit in what `token_at` says is that of an underscore
_PLACES: Final = 512  # of rows of spellings: there are some 250, of which few then share one
_KEEP_ALIVE: Final = b"keep-alive"
_KEEP_ALIVE_AS_TITLE: Final = b"Keep-Alive"
_USUALS: Final = 128  # a power of two
_TWELVE_BITS: Final = 4095  # as a mask, in what `passed` says
_WORD: Final = 8  # octets
# Names that pass in requests or answers, as those who send most of them spell them.
_COMMON: Final[tuple[bytes, ...]] = (
    b"Accept", b"Accept-Encoding", b"Accept-Language", b"Access-Control-Allow-Origin", b"Age", b"Cache-Control",
    b"Content-Encoding", b"Content-Type", b"Cookie", b"DNT", b"ETag", b"Expires", b"Idempotency-Key", b"If-Match",
    b"If-Modified-Since", b"If-None-Match", b"Last-Modified", b"Location", b"Origin", b"Pragma", b"Priority", b"Range",
    b"Sec-Fetch-Dest", b"Sec-Fetch-Mode", b"Sec-Fetch-Site", b"Sec-Fetch-User", b"Server", b"Set-Cookie",
    b"Traceparent", b"Tracestate", b"Upgrade-Insecure-Requests", b"Vary", b"WWW-Authenticate", b"X-API-Key",
    b"X-Correlation-ID", b"X-Powered-By", b"X-Request-ID", b"X-Requested-With",
)  # fmt: skip
# Likewise, of which fewer heads have one. They come behind all others of their row.
_RARER: Final[tuple[bytes, ...]] = (
    b"Accept-Ranges", b"Access-Control-Allow-Headers", b"Access-Control-Allow-Methods", b"Access-Control-Max-Age",
    b"Access-Control-Request-Method", b"Allow", b"Alt-Svc", b"Baggage", b"Content-Disposition", b"Content-Language",
    b"Content-Security-Policy", b"Content-Range", b"Cross-Origin-Opener-Policy", b"If-Range",
    b"Link", b"NEL", b"Permissions-Policy", b"Referrer-Policy", b"Report-To", b"Retry-After", b"Sec-CH-UA",
    b"Sec-CH-UA-Mobile", b"Sec-CH-UA-Platform", b"Sec-GPC", b"Sentry-Trace", b"Server-Timing",
    b"Strict-Transport-Security", b"Timing-Allow-Origin", b"X-Amzn-Trace-Id", b"X-B3-ParentSpanId", b"X-B3-Sampled",
    b"X-B3-SpanId", b"X-B3-TraceId", b"X-Cache", b"X-Cloud-Trace-Context", b"X-Content-Type-Options", b"X-CSRF-Token",
    b"X-Datadog-Parent-Id", b"X-Datadog-Trace-Id", b"X-Frame-Options", b"X-Trace-Id", b"X-XSS-Protection",
)  # fmt: skip


class HeadError(Exception):
    """A head that is refused. `fault` says how; `detail` says what was wrong with this one."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class Name:
    """What is done with the fields of one name: kind (0: passes), and the name in lower case."""

    __slots__ = ("kind", "lower", "other")

    def __init__(self, kind: i64, lower: bytes, other: Name | None = None) -> None:
        self.kind = kind
        self.lower = lower
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


class Spelling:
    """A name as it is sent. name: what is done with it. size: without its colon."""

    __slots__ = ("name", "size", "text")

    def __init__(self, text: bytes, name: Name) -> None:
        self.name = name
        self.text = text
        self.size: i64 = len(text)


def _place(word: i64) -> i64:
    """Of a name, by the first four octets of it and its colon."""
    return (word ^ word >> 9 ^ word >> 18) & (_PLACES - 1)


def _words(spelling: Spelling, following: int) -> bytes:
    """A name as `spelling_at` reads it: how it begins, with its colon, which octets of that count, what comes then, how
    it ends; its size and its kind; which of its row is next."""
    text = spelling.text + b":"
    n_first = min(len(text), _WORD)
    last = text[-_WORD:] if len(text) > _WORD else b""
    numbers = [int(spelling.size), int(spelling.name.kind), following]
    return b"".join(
        [
            text[:_WORD].ljust(_WORD, b"\0"),
            (b"\xff" * n_first).ljust(_WORD, b"\0"),
            *[text[at : at + _WORD].ljust(_WORD, b"\0") for at in (_WORD, 2 * _WORD)],
            last.ljust(_WORD, b"\0"),
            *[number.to_bytes(_WORD, "little") for number in numbers],
        ]
    )


class Names:
    """Names that mean something, by lower-case name. Fixed: nothing that is read changes it.

    spellings: those that are told by whole words; table: the same for `spelling_at`, which numbers them from 1 on.
    """

    __slots__ = ("_slots", "spellings", "table")

    def __init__(self, kinds: Mapping[bytes, int]) -> None:
        self._slots: list[Name | None] = [None] * _SLOTS
        self.spellings: list[Spelling] = []
        for lower, kind in kinds.items():
            slot = sum(lower) % _SLOTS
            self._slots[slot] = Name(kind, lower, self._slots[slot])
        usual = [b"-".join([part.capitalize() for part in lower.split(b"-")]) for lower in kinds]
        lower_case = [name.lower() for name in _COMMON]
        rarer = [*_RARER, *[name.lower() for name in _RARER]]
        for text in dict.fromkeys((*_COMMON, *usual, *lower_case, *kinds, *rarer)):
            self._add(text)
        rows: dict[int, list[int]] = {}
        for number, spelling in enumerate(self.spellings, 1):
            rows.setdefault(_place(word_at((spelling.text + b":").ljust(_WORD, b"\0"), 0)), []).append(number)
        following = {number: other for row in rows.values() for number, other in pairwise(row)}
        places = [rows[place][0] if place in rows else 0 for place in range(_PLACES)]
        self.table = b"".join(
            [number.to_bytes(2, "little") for number in places]
            + [_words(spelling, following.get(number, 0)) for number, spelling in enumerate(self.spellings, 1)]
        )

    def _add(self, text: bytes) -> None:
        """Have a spelling in the table, if what is done with it depends on nothing else and it is neither too short to
        have a place nor too long."""
        lower = text.lower()
        size = len(lower)
        name = self.find(lower, 0, size, sum(lower)) or self.judge(lower, 0, size, b"_" in lower)
        if _WORD // 2 - 1 <= size < 4 * _WORD and (name.kind != 0 or name is PLAIN):
            self.spellings.append(Spelling(text, name))

    def find(self, raw: bytes, start: i64, end: i64, total: i64) -> Name | None:
        """A name as it stands in a head, of which the octets (lower case) add up to `total`."""
        name = self._slots[total & (_SLOTS - 1)]
        while name is not None and not (len(name.lower) == end - start and begins(raw, start, name.lower)):
            name = name.other
        return name

    def judge(self, raw: bytes, start: i64, end: i64, has_underscore: bool) -> Name:
        """What is to be done with any other name. Names may be new in every head, so this must not cost much."""
        return PLAIN


class Usual:
    """A value of a field, and the same as text."""

    __slots__ = ("text", "value")

    def __init__(self, value: bytes, text: str) -> None:
        self.value = value
        self.text = text


class Usuals:
    """Values that come again and again, so that neither octets nor text are made of them anew: one for each place, of
    which the last stays. That they are the same objects is what others know them by, who remember more of them."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: list[Usual | None] = [None] * _USUALS

    def find(self, raw: bytes, start: i64, end: i64) -> Usual:
        """The value that stands there."""
        size = end - start
        if size < _WORD or size > MAX_NAME:
            return Usual(cut(raw, start, end), text_of(raw, start, end))
        word = word_at(raw, end - _WORD) + word_at(raw, start) + size
        place = (word ^ word >> 7 ^ word >> 20 ^ word >> 37) & (_USUALS - 1)
        usual = self._places[place]
        if usual is None or len(usual.value) != size or not has_at(raw, start, usual.value):
            usual = self._places[place] = Usual(cut(raw, start, end), text_of(raw, start, end))
        return usual


@mypyc_attr(acyclic=True)
class FieldLines:
    """The field lines of one head, read one by one; `lines` is made of those that are kept.

    raw: what was read; more may stand behind the head. at: where the first field begins. fault: of a head that is
    refused. most: how many fields are read before the head is too large. size: of the head with its blank line, once
    that was found. Where `raw` ends before it, `next` raises IndexError, if it did not find another fault until there.
    """

    __slots__ = ("_a", "_a_end", "_b", "_b_end", "_c", "_c_end", "_colon", "_end", "_fault", "_from", "_most",
                 "_n_kept", "_names", "_next", "_pieces", "_raw", "_start", "count", "is_plain", "size")  # fmt: skip

    def __init__(self, raw: bytes, at: i64, names: Names, fault: Fault, most: i64 = _UNLIMITED) -> None:
        self._raw = raw
        self._names = names
        self._fault = fault
        self._most = most
        self._start: i64 = at  # of the current line
        self._colon: i64 = at
        self._end: i64 = at  # of its value, before CR LF
        self._next: i64 = at
        self._from: i64 = at  # where the lines begin that are kept and not yet noted
        # Where lines stand that are kept together; most heads have one or two such stretches.
        self._n_kept: i64 = 0
        self._a: i64 = 0
        self._a_end: i64 = 0
        self._b: i64 = 0
        self._b_end: i64 = 0
        self._c: i64 = 0
        self._c_end: i64 = 0
        self._pieces: list[bytes] | None = None  # all that is kept, if it is more than three, or not as it came
        self.count: i64 = 0
        self.size: i64 = 0
        self.is_plain = True  # is the current line `name: value` exactly as it would be sent?

    def next(self) -> Name | None:
        """The name of the next line that has to be looked at; None at the end. Raises HeadError.

        What is neither known nor odd is kept, and passed over.
        """
        raw, names = self._raw, self._names
        at: i64 = self._next
        while True:
            found = passed(raw, at, names.table)
            at = found >> 24
            self.count += found >> 12 & _TWELVE_BITS
            if self.count > self._most:
                raise self._too_many()
            start = at
            name: Name | None
            number = found & _TWELVE_BITS
            if number:
                spelled = names.spellings[number - 1]
                name = spelled.name
                at += spelled.size
            else:
                name = self._read_name(at)
                if name is None:
                    return None
                at = self._colon
            colon = at
            found = line_end(raw, at)
            if found < 0:
                if found == -1:
                    raise IndexError
                raise self._refusal("a field has octets that HTTP does not allow")
            self.count += 1
            if self.count > self._most:
                raise self._too_many()
            is_plain = found & 1 != 0
            at = found >> 1
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

    def _read_name(self, at: i64) -> Name | None:
        """The name that begins there, up to its colon; None at the end of the head. Raises HeadError."""
        raw = self._raw
        start = at
        found = token_at(raw, at, _TOKEN)
        if found < 0:
            raise IndexError
        at = found >> 11
        if raw[at] != _COLON or at == start:
            if at == start and raw[at] == _CR and raw[at + 1] == _LF:
                self._start = at
                self.size = at + 2
                self._keep_until_here()
                return None
            raise self._refusal("a line without a name that is a token and a colon behind it")
        self._colon = at
        name = self._names.find(raw, start, at, found & (_SLOTS - 1))
        return name if name is not None else self._names.judge(raw, start, at, found & _SLOTS != 0)

    def name(self) -> bytes:
        """Of the current line, as it was sent."""
        return self._raw[self._start : self._colon]

    def value(self) -> bytes:
        """Of the current line, without white space around it."""
        if self.is_plain:
            return cut(self._raw, self._colon + 2, self._end)
        return self._raw[self._colon + 1 : self._end].strip(WHITE)

    def text(self) -> str:
        """The same as text."""
        if self.is_plain:
            return text_of(self._raw, self._colon + 2, self._end)
        return self.value().decode("latin-1")

    def says(self, value: bytes) -> bool:
        """Is this the value of the current line, which is plain? Nothing is made of it."""
        at = self._colon + 2
        return self.is_plain and self._end - at == len(value) and has_at(self._raw, at, value)

    def options_here(self) -> frozenset[bytes]:
        """Those of the current line, which is of Connection."""
        if self.says(_KEEP_ALIVE) or self.says(_KEEP_ALIVE_AS_TITLE):
            return KEEP_ALIVE
        return connection_options(self.value())

    def usual(self, usuals: Usuals) -> Usual:
        """Both, of a value that is probably not new."""
        if self.is_plain:
            return usuals.find(self._raw, self._colon + 2, self._end)
        return Usual(self.value(), self.text())

    def first(self) -> i64:
        """The first octet of the value of the current line, which is plain."""
        return self._raw[self._colon + 2]

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
            self._add(b"%b: %b\r\n" % (self.name(), value))

    def drop(self) -> None:
        """The current line does not go on."""
        self._keep_until_here()
        self._from = self._next

    def lines(self) -> bytes:
        """What was kept, as it is sent."""
        pieces = self._pieces
        if pieces is None:
            return cut_three(self._raw, self._a, self._a_end, self._b, self._b_end, self._c, self._c_end)
        return b"".join(pieces)

    def _keep_until_here(self) -> None:
        start, end = self._from, self._start
        if start >= end:
            return
        n_kept = self._n_kept
        self._n_kept = n_kept + 1
        if n_kept == 0:
            self._a, self._a_end = start, end
        elif n_kept == 1:
            self._b, self._b_end = start, end
        elif n_kept == 2:
            self._c, self._c_end = start, end
        else:
            self._add(cut(self._raw, start, end))

    def _add(self, piece: bytes) -> None:
        if self._pieces is None:
            self._pieces = [self.lines()]
            self._n_kept = 3
        self._pieces.append(piece)

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
