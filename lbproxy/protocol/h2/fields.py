"""Fields of HTTP/2, each checked once, when it is made: in the table of a connection it then serves many requests.

What is refused (RFC 9113 section 8.2.1) is refused on the stream and not on the connection, since the table must go on:
a field that is not allowed is BAD and says why. Names are tokens without upper case. Values have no control
character but HTAB, and no white space around them: so `line` is one line of HTTP/1, whatever was sent.
"""

from __future__ import annotations

import re
from typing import Final

from lbproxy.compiling import cut, has_at, i64, join_four, mypyc_attr, value_end
from lbproxy.protocol.deadline import GRPC_TIMEOUT
from lbproxy.protocol.message import MAX_LENGTH, host_match, parse_length, token_match
from lbproxy.protocol.request_fields import means_nothing

PLAIN: Final = 0
"""Means nothing to the gateway's framing."""
COOKIE: Final = 1
CONTENT_LENGTH: Final = 2
HOST: Final = 3
TE: Final = 4
CONTENT_TYPE: Final = 5
EXPECT: Final = 6
METHOD: Final = 7
SCHEME: Final = 8
AUTHORITY: Final = 9
PATH: Final = 10
PROTOCOL: Final = 11
STATUS: Final = 12
BAD: Final = 13
"""Makes the message that has it malformed."""

_CONNECTION_SPECIFIC: Final = 14
_KINDS: Final[dict[bytes, int]] = {
    b"cookie": COOKIE,
    b"content-length": CONTENT_LENGTH,
    b"host": HOST,
    b"te": TE,
    b"content-type": CONTENT_TYPE,
    b"expect": EXPECT,
    b":method": METHOD,
    b":scheme": SCHEME,
    b":authority": AUTHORITY,
    b":path": PATH,
    b":protocol": PROTOCOL,
    b":status": STATUS,
    # RFC 9113 section 8.2.2
    b"connection": _CONNECTION_SPECIFIC,
    b"keep-alive": _CONNECTION_SPECIFIC,
    b"proxy-connection": _CONNECTION_SPECIFIC,
    b"transfer-encoding": _CONNECTION_SPECIFIC,
    b"upgrade": _CONNECTION_SPECIFIC,
}
FLEETING: Final = frozenset(
    (
        b"age",
        b"content-length",
        b"content-range",
        b"date",
        b"etag",
        b"expires",
        b"grpc-message",
        b"grpc-timeout",
        b"if-modified-since",
        b"if-none-match",
        b"last-modified",
        b"location",
        b"set-cookie",
        b"traceparent",
        b"tracestate",
        b"x-request-id",
    )
)
"""Fields that say something else each time, so that an entry for one is an entry lost."""
# Never indexed, by anybody on the way (RFC 7541 section 7.1.3): somebody who guesses them could see that a guess is
# right. A connection to a server carries what many clients send.
SECRET: Final[frozenset[bytes]] = frozenset((b"authorization", b"cookie", b"proxy-authorization"))
_MAX_NAMES: Final = 1024
_MAX_NAME: Final = 64
_HTAB: Final = 9
_SPACE: Final = 32
_COLON: Final = 58
_MAX_SHOWN: Final = 40
# Octets of a name (RFC 9110 section 5.6.2) without upper case.
_NAME: Final = bytes(
    code < 128 and chr(code) in "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" for code in range(256)
)
_scheme_match = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*").fullmatch
_path_match = re.compile(rb"/[\x21-\x7e]*|\*").fullmatch
_status_match = re.compile(rb"[1-5][0-9][0-9]").fullmatch


@mypyc_attr(acyclic=True)
class H2Field:
    """One field. Immutable by convention: a connection's table and many heads share it.

    line: `name: value` and CR LF, as HTTP/1 has it; empty for pseudo-fields and for what is BAD. number: of
    content-length and :status, else -1. name_kind: what it would be with another value. is_secret: its sender wants it
    in no table (RFC 7541 section 7.1.3). why: of a BAD one, else empty. is_inert: a request goes the same way with this
    field, with another value, and without it, as far as HTTP is concerned. is_stored: it is in a table. varies: it says
    something else in each message, by its name, or as its sender has put it into no table.
    """

    __slots__ = ("is_inert", "is_secret", "is_stored", "kind", "line", "name", "name_kind", "number", "size", "value",
                 "varies", "why")  # fmt: skip

    def __init__(self, name: bytes, value: bytes, kind: i64, why: str = "", is_secret: bool = False) -> None:
        self.name = name
        self.value = value
        self.kind: i64 = kind
        self.name_kind: i64 = kind
        self.why = why
        self.is_secret = is_secret
        self.is_inert = False
        self.is_stored = False
        self.varies = False
        self.number = -1
        self.size: i64 = len(name) + len(value)
        self.line = join_four(name, b": ", value, b"\r\n") if kind < METHOD else b""


NO_FIELDS: Final[list[H2Field]] = []  # it is never added to


def kind_of(name: bytes) -> int:
    """What fields of this name are; BAD if there may be none of that name."""
    known = _KINDS.get(name)
    if known is not None:
        return BAD if known == _CONNECTION_SPECIFIC else known
    table = _NAME
    size: i64 = len(name)
    if not size:
        return BAD
    at: i64 = 0
    while at < size:
        if not table[name[at]]:
            return BAD
        at += 1
    return PLAIN


def has_clean_value(value: bytes) -> bool:
    """RFC 9113 section 8.2.1 and RFC 9110 section 5.5: no control character but HTAB, no white space at either end."""
    size: i64 = len(value)
    if not size:
        return True
    if value_end(value, 0) != size:
        return False
    first: i64 = value[0]
    last: i64 = value[size - 1]
    return first != _SPACE and first != _HTAB and last != _SPACE and last != _HTAB


def make_field(name: bytes, value: bytes, kind: int = -1, is_secret: bool = False) -> H2Field:
    """The field, checked. kind: of the name, where it was looked up before."""
    known: Name | None = None
    if kind < 0:
        known = _NAMES.find(name)
        kind = known.kind
    if kind == BAD:
        return H2Field(name, value, BAD, _why_no_name(name), is_secret)
    if not has_clean_value(value):
        why = f"the value of {_shown(name)} has octets that HTTP does not allow"
        bad = H2Field(name, value, BAD, why, is_secret)
        bad.name_kind = kind
        return bad
    field = H2Field(name, value, kind, "", is_secret)
    if kind == PLAIN:
        if known is None:
            known = _NAMES.find(name)
        field.name = known.octets
        field.is_inert = known.is_inert and not is_secret
        field.varies = known.is_fleeting
    else:
        _judge(field, kind)
    return field


class Name:
    """What is known of a name of fields. octets: always the same object, so that its hash is computed once."""

    __slots__ = ("is_fleeting", "is_grpc_timeout", "is_inert", "kind", "octets", "size")

    def __init__(self, octets: bytes, kind: int) -> None:
        self.octets = octets
        self.size: i64 = len(octets)
        self.kind = kind
        self.is_grpc_timeout = octets == GRPC_TIMEOUT
        self.is_inert = kind == PLAIN and means_nothing(octets)
        self.is_fleeting = octets in FLEETING


class _Names:
    """Those that were met, for all connections. A table that is full is emptied: what is met again comes back.

    Before it is looked at, the one of this length that was met last is: to compare octets takes less than their hash.
    """

    __slots__ = ("_known", "_latest")

    def __init__(self) -> None:
        self._known: dict[bytes, Name] = {}
        self._latest = [Name(b"", BAD)] * (_MAX_NAME + 1)

    def find_at(self, block: bytes, at: i64, size: i64) -> Name:
        """The one that stands there."""
        if size <= _MAX_NAME:
            latest = self._latest[size]
            if latest.size == size and has_at(block, at, latest.octets):
                return latest
        return self.find(cut(block, at, at + size))

    def find(self, octets: bytes) -> Name:
        size: i64 = len(octets)
        if size <= _MAX_NAME:
            latest = self._latest[size]
            if latest.octets == octets:
                return latest
        known = self._known.get(octets)
        if known is None:
            known = Name(octets, kind_of(octets))
            if len(octets) <= _MAX_NAME:
                if len(self._known) >= _MAX_NAMES:
                    self._known.clear()
                self._known[octets] = known
        if size <= _MAX_NAME:
            self._latest[size] = known
        return known


_NAMES: Final = _Names()


def name_at(block: bytes, at: i64, size: i64) -> Name:
    """What is known of the name of so many octets that stands there, if it is one."""
    return _NAMES.find_at(block, at, size)


def _judge(field: H2Field, kind: int) -> None:
    """The grammar of values that decide about more than themselves."""
    value = field.value
    is_good = True
    if kind == CONTENT_LENGTH:
        length = parse_length(value)
        is_good = length is not None and length <= MAX_LENGTH
        if length is not None:
            field.number = length
    elif kind == STATUS:
        is_good = _status_match(value) is not None
        if is_good:
            field.number = int(value)
    elif kind == TE:
        is_good = value.lower() == b"trailers"  # RFC 9113 section 8.2.2
    elif kind in (HOST, AUTHORITY):
        # Section 8.3.1: not empty, and no user information.
        is_good = host_match(value) is not None
    elif kind in (METHOD, PROTOCOL):
        is_good = token_match(value) is not None
    elif kind == SCHEME:
        is_good = _scheme_match(value) is not None
    elif kind == PATH:
        is_good = _path_match(value) is not None
    if not is_good:
        field.kind = BAD
        field.line = b""
        field.why = f"{_shown(field.name)} is {_shown(value)}"


def _why_no_name(name: bytes) -> str:
    if name in _KINDS:
        return f"the field {_shown(name)} is about a connection of HTTP/1"
    if name.startswith(b":"):
        return f"there is no pseudo-field {_shown(name)}"
    return f"{_shown(name)} is no name of a field"


def _shown(octets: bytes) -> str:
    """As a message has it: quoted and short, whatever was sent."""
    return repr(octets[:_MAX_SHOWN].decode("latin-1"))
