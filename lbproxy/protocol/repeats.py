"""What was made of heads that come again, so that it is made once.

Most of what clients send never repeats, and pays a comparison for this. A head is kept when it comes twice in a row;
how many are kept and how long they may be is bounded, so no stranger makes it grow. What is kept must be a pure
function of the head, and of what the owner of the table knows and never changes.

Heads are found at the beginning of what was read, so nobody has to look for their end first. That is sound because a
head ends with its first blank line: what begins with one has this one as its head.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

Made = TypeVar("Made")

_KEY_BYTES: Final = 48  # where most heads differ, if they do; a head that is shorter usually comes alone
_MOST_ALIKE: Final = 8  # heads that begin with the same octets; more than that are looked through in vain


class Repeats(Generic[Made]):
    """A table of at most `most` heads, each of at most `longest` octets."""

    __slots__ = ("_is_kept", "_known", "_last", "_longest", "_made", "_most", "_n_known")

    def __init__(self, *, most: int, longest: int) -> None:
        self._known: dict[bytes, list[tuple[bytes, Made]]] = {}  # by their first octets
        self._n_known = 0
        self._last = b""
        self._made: Made | None = None
        self._is_kept = False
        self._most = most
        self._longest = longest

    def find(self, data: bytes) -> Made | None:
        """What was made of the head that `data` begins with, if that is known."""
        last = self._last
        if last and data.startswith(last):
            if not self._is_kept and self._made is not None:
                self._keep(last, self._made)
            return self._made
        if self._known:
            for head, made in self._known.get(data[:_KEY_BYTES], ()):
                if data.startswith(head):
                    return made
        return None

    def learn(self, data: bytes, size: int, made: Made) -> None:
        """Note what was made of a head that was not found: the first `size` octets of `data`."""
        if size <= self._longest:
            self._last = data[:size]
            self._made = made
            self._is_kept = False

    def _keep(self, head: bytes, made: Made) -> None:
        self._is_kept = True
        if self._n_known >= self._most:
            self._known.clear()
            self._n_known = 0
        alike = self._known.setdefault(head[:_KEY_BYTES], [])
        for at, (other, _) in enumerate(alike):
            if other == head:
                alike[at] = (head, made)
                return
        if len(alike) >= _MOST_ALIKE:
            del alike[0]
        else:
            self._n_known += 1
        alike.append((head, made))
