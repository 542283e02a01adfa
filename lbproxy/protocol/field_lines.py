"""The lines of a head: cut apart, checked octet by octet, and kept as they were sent wherever that says what was meant.

Most lines of a head mean nothing to a gateway. So a line stays what it is, `name: value` in one piece, and goes on like
that; pairs are made for the few that look at them. What a name means is looked up by the name *as it was sent*, in a
table that holds only names which have passed the strict check: a near miss of a known name is another name.

Lines are text of one character for each octet (ISO 8859-1), because text is cut and looked up in half the time.
What is interpreted is made bytes again first: the methods of text know more letters and digits than HTTP does.

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
WHITE: Final = " \t"
"""White space around a value (RFC 9110 section 5.6.3)."""
MAX_REMEMBERED: Final = 1024
"""How many names, hosts or status lines a table holds. One that is full is emptied: what is met again comes back."""

# What each octet becomes: itself if it may stand in a line, else NUL. One pass in C, and `0 in` is a search in memory.
# `bytes.translate` takes three times as long where it also deletes.
_OCTETS: Final = bytes(code if code == 9 or (code >= 32 and code != 127) else 0 for code in range(256))
# The same for a token, and lower case.
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


def cut(raw: bytes) -> list[str] | None:
    """The lines of a head, without their ends and without the blank line that ends it; the first is the start line.

    None: it does not end with its blank line, or an octet in it is none of a line.
    """
    lines = raw.decode("latin-1").split("\r\n")
    if len(lines) < 3 or lines.pop() or lines.pop() or 0 in "".join(lines).encode("latin-1").translate(_OCTETS):
        return None
    return lines


def lower_name(name: str) -> bytes:
    """The name in lower case; b"" if it is no token."""
    lower = name.encode("latin-1").translate(_TOKEN)
    return b"" if 0 in lower else lower


def written_anew(line: str, colon: int) -> str:
    """A line whose value may have any white space around it: one space before, none behind. colon: where it is."""
    return f"{line[:colon]}: {line[colon + 1 :].strip(WHITE)}"


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
