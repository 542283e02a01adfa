"""How long a trusted peer waits: taken out of its request's head, and passed on as what is left of it.

The time counts from the moment at which the head was complete, over queue, tries and answer. Each try tells its server
what is left then, so that a server can give up on work that nobody waits for. What cannot be read is removed: the
server must not act on a time that lbproxy does not keep.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from lbproxy.protocol.deadline import parse_timeout, write_timeout
from lbproxy.protocol.field_lines import without
from lbproxy.protocol.http1 import RequestHead

NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """timeout_s: the shortest of what the fields say, inf if none can be read. fields: (name as received, unit) of
    those that can. n_unreadable: how many field lines cannot."""

    timeout_s: float = NEVER
    fields: tuple[tuple[bytes, bytes], ...] = ()
    n_unreadable: int = 0

    def lines(self, left_s: float, skip: Collection[bytes]) -> bytes:
        """The fields for the server. skip: lower-case names that the config sets or removes."""
        return b"".join(
            b"%b: %b\r\n" % (name, write_timeout(left_s, unit))
            for name, unit in self.fields
            if name.lower() not in skip
        )


def take_deadlines(head: RequestHead, names: frozenset[bytes]) -> Deadlines | None:
    """Remove the fields with these lower-case names from the head; None if there is none."""
    left = without(head.lines, names)
    if len(left) == len(head.lines):
        return None
    found = [field for field in head.fields if field[0].lower() in names]
    head.lines = left
    timeout_s, fields, n_unreadable = NEVER, [], 0
    for name, value in found:
        lower = name.lower()
        parsed = parse_timeout(lower, value)
        if parsed is None or sum(other.lower() == lower for other, _ in found) > 1:
            n_unreadable += 1
            continue
        timeout_s = min(timeout_s, parsed[0])
        fields.append((name, parsed[1]))
    return Deadlines(timeout_s, tuple(fields), n_unreadable)
