"""How long a trusted peer waits: taken out of its request's head, and passed on as what is left of it.

The time counts from the moment at which the head was complete, over queue, tries and answer. Each try tells its server
what is left then, so that a server can give up on work that nobody waits for. What cannot be read is removed: the
server must not act on a time that lbproxy does not keep.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64, mypyc_attr, timeout_line
from lbproxy.protocol.deadline import GRPC_TIMEOUT, parse_timeout, write_timeout
from lbproxy.protocol.http1 import RequestHead

NEVER: Final = float("inf")
_MOST_S: Final = 99_999.0  # that can be said in milliseconds
_OF_CALLS: Final = [[(GRPC_TIMEOUT, bytes((unit,)))] for unit in range(256)]  # `fields` by their unit


@mypyc_attr(free_list_len=1, acyclic=True)
class Deadlines:
    """timeout_s: the shortest of what the fields say, inf if none can be read. fields: (name as received, unit) of
    those that can. n_unreadable: how many field lines cannot. of_call: the only one is that of a call of gRPC.
    Immutable by convention.

    No dataclass: its `__init__` is interpreted, and calls of gRPC make one of these in each request.
    """

    __slots__ = ("fields", "n_unreadable", "of_call", "timeout_s")

    def __init__(
        self, timeout_s: float, fields: list[tuple[bytes, bytes]], n_unreadable: int, of_call: bool = False
    ) -> None:
        self.timeout_s = timeout_s
        self.fields = fields
        self.n_unreadable = n_unreadable
        self.of_call = of_call

    def lines(self, left_s: float, skip: frozenset[bytes], behind: bytes) -> bytes:
        """The fields for the server, and lines behind them. skip: lower-case names that the config sets or removes."""
        if self.of_call and left_s < _MOST_S and not len(skip):
            ms: i64 = int(left_s * 1000.0)
            return timeout_line(max(ms, 1), behind)
        lines = b""
        for name, unit in self.fields:
            if name.lower() not in skip:
                lines += b"%b: %b\r\n" % (name, write_timeout(left_s, unit))
        return lines + behind


def deadline_of_call(timeout_s: float, unit: int) -> Deadlines:
    """What grpc-timeout says of a call that says nothing else. unit: its octet."""
    return Deadlines(timeout_s, _OF_CALLS[unit], 0, of_call=True)


def take_deadlines(head: RequestHead, names: frozenset[bytes]) -> Deadlines | None:
    """Remove the fields with these lower-case names from the head; None if there is none."""
    lines = head.lines
    begins = _lines_with(lines, names)
    if not begins:
        return None
    left: list[bytes] = []
    found: list[tuple[bytes, bytes]] = []
    at = 0
    for begin in begins:
        end = lines.index(b"\r\n", begin)
        colon = lines.index(b": ", begin)
        found.append((lines[begin:colon], lines[colon + 2 : end]))
        left.append(lines[at:begin])
        at = end + 2
    left.append(lines[at:])
    head.lines = b"".join(left)
    lower_names = [name.lower() for name, _ in found]
    timeout_s, n_unreadable = NEVER, 0
    fields: list[tuple[bytes, bytes]] = []
    for (name, value), lower in zip(found, lower_names, strict=True):
        parsed = parse_timeout(lower, value)
        if parsed is None or lower_names.count(lower) > 1:
            n_unreadable += 1
            continue
        timeout_s = min(timeout_s, parsed[0])
        fields.append((name, parsed[1]))
    of_call = len(fields) == 1 and fields[0][0] == GRPC_TIMEOUT
    return Deadlines(timeout_s, fields, n_unreadable, of_call)


def _lines_with(lines: bytes, names: frozenset[bytes]) -> list[int]:
    """Where the lines begin that have one of these lower-case names, in order."""
    text = b"\r\n" + lines.lower()  # so a line begins two octets further on than in `lines`
    found: list[int] = []
    for name in names:
        mark = b"\r\n%b: " % name
        at = text.find(mark)
        while at >= 0:
            found.append(at)
            at = text.find(mark, at + 2)
    if len(found) > 1:
        found.sort()
    return found
