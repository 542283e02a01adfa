"""Request heads that were seen before, so that parsing and rewriting them again is a look-up.

Two levels. A head whose bytes are known is found at once (0.3 us for 8). A head that is known but for fields that
nobody
interprets (a trace id that is new in each request) is found without these lines, which are checked on their own and
added behind the fields of the known head. All else takes the full parser.

That is sound because a prepared head is a pure function of its bytes and the listener's config, and because a field is
set aside only if it is a valid field line of its own, no name that the proxy looks at, not one of a name that the
rest of the head has too (the order of equal names has meaning), and the rest of the head nominates nothing for removal.

Everything is bounded, and filled only by heads and lines that come a second time: what never repeats costs a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lbproxy.protocol.http1 import plain_field

if TYPE_CHECKING:
    from lbproxy.dataplane.prepare import Prepared

MAX_HEADS: Final = 1024
MAX_LINES: Final = 1024
MAX_HEAD_BYTES: Final = 4096
MAX_EXTRA: Final = 4


class HeadMemo:
    """The memo of one listener and one level of trust. `heads` is public for the hot path's first look."""

    __slots__ = ("_lines", "_seen_heads", "_seen_lines", "_takes_extra", "heads")

    def __init__(self, *, takes_extra: bool) -> None:
        """takes_extra: nothing in the listener's config (routes, edits, plug-ins) reads fields."""
        self.heads: dict[bytes, Prepared] = {}
        self._lines: dict[bytes, bytes] = {}  # field line -> lower-case name
        self._seen_heads: set[int] = set()
        self._seen_lines: set[int] = set()
        self._takes_extra = takes_extra

    def find(self, raw: bytes, max_fields: int) -> tuple[Prepared, bytes] | None:
        """A known head that `raw` is but for some plain fields, and these as they are sent. None: parse it."""
        if not self._takes_extra:
            return None
        lines = raw[:-4].split(b"\r\n")
        if len(lines) - 1 > max_fields:
            return None
        known = self._lines
        kept = [lines[0]]
        extra: list[bytes] = []
        for line in lines[1:]:
            (kept if line in known else extra).append(line)
        if not extra or len(extra) > MAX_EXTRA:
            return None
        prepared = self.heads.get(b"\r\n".join(kept) + b"\r\n\r\n")
        if prepared is None or not prepared.takes_extra:
            return None
        names = prepared.names
        if names is None:
            names = prepared.names = frozenset([known[line] for line in kept[1:]])
        out = b""
        for line in extra:
            field = plain_field(line)
            if field is None or field[0] in names:
                return None
            out += field[1]
        return prepared, out

    def learn(self, raw: bytes, prepared: Prepared, prepare: Callable[[bytes], Prepared]) -> None:
        """Note a head that was parsed; keep it, or what of it repeats, the second time."""
        if len(raw) > MAX_HEAD_BYTES:
            return
        if self._is_repeated(self._seen_heads, raw):
            self._keep(raw, prepared)
            return
        if not self._takes_extra:
            return
        lines = raw[:-4].split(b"\r\n")
        kept = [lines[0]]
        for line in lines[1:]:
            if line in self._lines:
                kept.append(line)
            elif self._is_repeated(self._seen_lines, line):
                if len(self._lines) >= MAX_LINES:
                    self._lines.clear()
                self._lines[line] = line.partition(b":")[0].lower()
                kept.append(line)
            elif plain_field(line) is None:
                return  # without it the rest would be another request, or none at all
        if 1 < len(kept) < len(lines):
            base = b"\r\n".join(kept) + b"\r\n\r\n"
            if base not in self.heads and self._is_repeated(self._seen_heads, base):
                self._keep(base, prepare(base))

    def _keep(self, raw: bytes, prepared: Prepared) -> None:
        if len(self.heads) >= MAX_HEADS:
            self.heads.clear()
        self.heads[raw] = prepared

    @staticmethod
    def _is_repeated(seen: set[int], text: bytes) -> bool:
        number = hash(text)
        if number in seen:
            return True
        if len(seen) >= 4 * MAX_HEADS:
            seen.clear()
        seen.add(number)
        return False
