"""What was made of texts that come again, so that it is made once: whole heads, single lines.

Most of what clients send never repeats, and pays a comparison for this. A text is kept when it comes twice in a row;
how many are kept and how long they may be is bounded, so no stranger makes it grow. What is kept must be a pure
function of the text, and of what the owner of the table knows and never changes.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Made = TypeVar("Made")


class Repeats(Generic[Made]):
    """A table of at most `most` texts, each of at most `longest` octets."""

    __slots__ = ("_is_kept", "_known", "_last", "_longest", "_made", "_most")

    def __init__(self, *, most: int, longest: int) -> None:
        self._known: dict[bytes, Made] = {}
        self._last = b""
        self._made: Made | None = None
        self._is_kept = False
        self._most = most
        self._longest = longest

    def find(self, text: bytes) -> Made | None:
        """What was made of this text, if that is known."""
        if text == self._last:
            if not self._is_kept and self._made is not None:
                self._keep(text, self._made)
            return self._made
        return self._known.get(text) if self._known else None

    def learn(self, text: bytes, made: Made) -> None:
        """Note what was made of a text that was not found."""
        if len(text) <= self._longest:
            self._last = text
            self._made = made
            self._is_kept = False

    def _keep(self, text: bytes, made: Made) -> None:
        self._is_kept = True
        if len(self._known) >= self._most:
            self._known.clear()
        self._known[text] = made
