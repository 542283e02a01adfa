"""Heads of servers that are not quite HTTP: turned into strict ones before the strict parser sees them, or left alone.

The strict parser has the last word on whatever comes out, so a mistake here refuses an answer and never lets one
through unread. What goes to the client is written from what was parsed. `one_length` is for every pool: it has one
reading. `repaired` is for pools that are `lenient`: each of its readings is the one that RFC 9112 allows or asks for,
but somebody who can write into a field of an answer could profit where another reader differs.
"""

from __future__ import annotations

import re
from typing import Final

_status_line = re.compile(rb"HTTP/1\.([0-9])[ \t]+([1-9][0-9]{2})(?:[ \t]+(.*?))?[ \t]*", re.DOTALL).fullmatch
_field = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*:(.*)", re.DOTALL).fullmatch
# Control octets that mean nothing to a parser; CR, LF and NUL do to some, and are never repaired.
_CONTROLS: Final = bytes(code for code in range(1, 32) if code not in (9, 10, 13)) + b"\x7f"
_AS_SPACES: Final = bytes.maketrans(_CONTROLS, b" " * len(_CONTROLS))
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))


def one_length(values: list[bytes]) -> bytes:
    """The one Content-Length that all these values are, alone or in lists (RFC 9110 section 8.6); b"" if there is none.

    `5` and `05` are not the same, nor is `5, 6`: two readers could then differ.
    """
    each = [one.strip(b" \t") for value in values for one in value.split(b",")]
    return each[0] if len(set(each)) == 1 and each[0].isdigit() else b""


def lenient_end(data: bytes) -> int:
    """Where the head ends that `data` begins with: behind its blank line; -1 if that has not come.

    A head whose first line ends in a bare LF has such lines only, any other has none. One that mixes them ends here, so
    that the parser refuses it now and nobody waits for the rest of it.
    """
    first = data.find(b"\n")
    if first < 0:
        return -1
    is_bare = first == 0 or data[first - 1] != 13  # CR; compiled, a slice must not begin behind its end
    blank = b"\n\n" if is_bare else b"\r\n\r\n"
    end = data.find(blank)
    end = end + len(blank) if end >= 0 else -1
    head = data[:end] if end >= 0 else data
    is_mixed = b"\r" in head if is_bare else head.count(b"\n") != head.count(b"\r\n")
    return len(head) if is_mixed else end


def repaired(raw: bytes) -> tuple[bytes, bool] | None:
    """A strict head for one that is not, and whether the connection may be kept; None if it is beyond repair.

    - Lines that all end in a bare LF (RFC 9112 section 2.2). Not some of them: a lone LF among CR LF is what a value
      with a line break in it looks like, and would become a field of its own.
    - Folded values: the fold becomes a space (5.2). Not of framing fields, and not a line of nothing but white space,
      which some take for the end of the head.
    - White space before the colon is removed (5.1), before framing is looked at.
    - More white space in the status line, or HTAB for SP.
    - Control characters in values and in the reason become spaces (RFC 9110 section 5.5).
    - Content-Length beside Transfer-Encoding is dropped, and the connection not kept (6.3, rule 3).
    """
    lines = _lines(raw)
    status = _status_line(lines[0]) if lines is not None else None
    if lines is None or status is None:
        return None
    fields: list[tuple[bytes, bytes]] = []
    for line in lines[1:]:
        if line[:1] in (b" ", b"\t"):
            more = line.strip(b" \t")
            if not more or not fields or fields[-1][0].lower() in _FRAMING:
                return None
            fields[-1] = (fields[-1][0], fields[-1][1] + b" " + more)
        else:
            match = _field(line)
            if match is None:
                return None
            fields.append((match[1], match[2].strip(b" \t")))
    names = {name.lower() for name, _ in fields}
    keeps = True
    if b"transfer-encoding" in names and b"content-length" in names:
        keeps = False
        fields = [field for field in fields if field[0].lower() != b"content-length"]
    reason = (status[3] or b"").translate(_AS_SPACES)
    head = [b"HTTP/1.%b %b %b" % (status[1], status[2], reason)]
    head += [
        b"%b: %b" % (name, value if name.lower() in _FRAMING else value.translate(_AS_SPACES)) for name, value in fields
    ]
    return b"\r\n".join(head) + b"\r\n\r\n", keeps


def _lines(raw: bytes) -> list[bytes] | None:
    """The lines of a head without their ends and without the blank one; None if a bare CR or LF is among CR LF."""
    if b"\r" not in raw:
        return raw[:-2].split(b"\n") if raw.endswith(b"\n\n") else None
    lines = raw[:-4].split(b"\r\n") if raw.endswith(b"\r\n\r\n") else [b"\n"]
    return None if any(b"\r" in line or b"\n" in line for line in lines) else lines
