"""What was made of texts that come again, so that it is made once: whole heads, single lines.

Most of what clients send never repeats, and pays one hash for this. A text is kept when it comes a second time; how
many are kept, how long they may be and how many hashes are noted are bounded, so no stranger makes it grow. What is
kept must be a pure function of the text, and of what the owner of the table knows and never changes.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

MAX_SEEN: Final = 4096

Text = TypeVar("Text", bound=str | bytes)
Made = TypeVar("Made")


class Repeats(Generic[Text, Made]):
    """A table of at most `most` texts. `known` is public for the hot path's look."""

    __slots__ = ("_longest", "_most", "_seen", "known")

    def __init__(self, *, most: int, longest: int) -> None:
        """longest: of a text that is kept."""
        self.known: dict[Text, Made] = {}
        self._most = most
        self._longest = longest
        self._seen: set[int] = set()

    def learn(self, text: Text, made: Made) -> None:
        """Note a text that is not kept; keep what was made of it if it has come before."""
        number = hash(text)
        if number not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(number)
        elif len(text) <= self._longest:
            if len(self.known) >= self._most:
                self.known.clear()
            self.known[text] = made
