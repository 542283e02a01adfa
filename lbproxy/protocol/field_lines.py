"""The lines of a head: cut apart, checked octet by octet, and kept as they were sent wherever that says what was meant.

Most lines of a head mean nothing to a gateway. So a line stays what it is, `name: value` in one piece, and goes on like
that; pairs are made for the few that look at them. What a name means is looked up by the name *as it was sent*, in a
table that holds only names which have passed the strict check: a near miss of a known name is another name.

Lines are text of one character for each octet (ISO 8859-1), because text is cut and looked up in half the time.
What is interpreted is made bytes again first: the methods of text know more letters and digits than HTTP does.

What a line says depends on the line alone, so that of lines which come again and again (Host, User-Agent, a length) is
remembered. All that is remembered is bounded.

Strict means: field octets only (RFC 9110 section 5.5: no control character but HTAB), CR LF at the end of each line and
nowhere else, and a token before the colon, without white space around it (RFC 9112 section 5.1). A folded line begins
with white space, which no token does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lbproxy.errors import Fault
from lbproxy.protocol.message import Fields

MAX_NAME: Final = 256
MAX_LINES: Final = 2048
"""How many lines are remembered, each of at most MAX_NAME characters."""
NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_SPACE: Final = 32
WHITE: Final = " \t"
"""White space around a value (RFC 9110 section 5.6.3)."""
MAX_REMEMBERED: Final = 1024
"""How many names, hosts or status lines a table holds. One that is full is emptied: what is met again comes back."""

# What each octet becomes: itself if it may stand in a line, else another. One pass in C, and a comparison of memory;
# `bytes.translate` takes three times as long where it also deletes.
_OCTETS: Final = bytes(code if code == 9 or (code >= 32 and code != 127) else code ^ 1 for code in range(256))
_VISIBLE: Final = bytes(code if 32 < code < 127 else code ^ 1 for code in range(256))
# What becomes of the octets of a token: lower case, and NUL of those that are none of one.
_TOKEN: Final = bytes(
    ord(chr(code).lower()) if code < 128 and (chr(code).isalnum() or chr(code) in "!#$%&'*+-.^_`|~") else 0
    for code in range(256)
)


class HeadError(Exception):
    """A head that is refused. `fault` says how; `detail` says what was wrong with this one."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class Name:
    """What is done with the fields of one name, as it is spelled.

    kind: of whoever made it. lower: of those that are looked at. last: the last line with it that was not remembered.
    """

    __slots__ = ("kind", "last", "lower")

    def __init__(self, kind: int, lower: bytes) -> None:
        self.kind = kind
        self.lower = lower
        self.last = ""


class Line:
    """What one line says, as far as it depends on nothing but the line.

    kind: what is done with it. lower: its name, if it is looked at. sent: the line as it goes on. text, value: its
    value. number: a length, -1 if it is none. options: of a Connection field.
    """

    __slots__ = ("kind", "lower", "number", "options", "sent", "text", "value")

    def __init__(self, kind: int, lower: bytes, text: str, sent: str) -> None:
        self.kind = kind
        self.lower = lower
        self.text = text
        self.value = text.encode("latin-1")
        self.sent = sent
        self.number = -1
        self.options = NO_OPTIONS


def remember(lines: dict[str, Line], name: Name, line: str, found: Line) -> None:
    """Keep what a line says if it came twice in a row under its name: so nothing is kept of what never repeats, which
    costs a comparison, and what repeats now and then comes to be known."""
    if name.last != line:
        name.last = line if len(line) <= MAX_NAME else ""
    else:
        if len(lines) >= MAX_LINES:
            lines.clear()
        lines[line] = found


def cut(raw: bytes) -> list[str] | None:
    """The lines of a head, without their ends and without the blank line that ends it; the first is the start line.

    None: it does not end with its blank line. What is in the lines has still to be looked at.
    """
    lines = raw.decode("latin-1").split("\r\n")
    if len(lines) < 3 or lines.pop() or lines.pop():
        return None
    return lines


def colon_of(line: str) -> tuple[int, bool]:
    """Where the name ends, and whether the line is `name: value` exactly as it would be sent.

    -1 where there is no colon, or where an octet is none of a line.
    """
    colon = line.find(":")
    octets = line.encode("latin-1")
    if colon < 0 or octets.translate(_OCTETS) != octets:
        return -1, False
    size = len(line)
    is_plain = (
        size > colon + 2
        and ord(line[colon + 1]) == _SPACE
        and ord(line[colon + 2]) > _SPACE
        and ord(line[size - 1]) > _SPACE
    )
    return colon, is_plain


def is_visible(text: str) -> bool:
    """Is it ASCII, without white space and control characters?"""
    octets = text.encode("latin-1")
    return octets.translate(_VISIBLE) == octets


def lower_name(name: str) -> bytes:
    """The name in lower case; b"" if it is no token."""
    lower = name.encode("latin-1").translate(_TOKEN)
    return b"" if 0 in lower else lower


def fields_of(lines: Iterable[str]) -> Fields:
    """Name and value of lines of the form `name: value`."""
    fields: Fields = []
    for line in lines:
        name, _, value = line.partition(": ")
        fields.append((name.encode("latin-1"), value.encode("latin-1")))
    return fields


def lines_of(fields: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The lines of such pairs, without their ends."""
    return [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in fields]


def without(lines: Iterable[str], names: frozenset[bytes]) -> list[str]:
    """The lines that have none of these lower-case names."""
    return [line for line in lines if line.partition(":")[0].lower().encode("latin-1") not in names]
