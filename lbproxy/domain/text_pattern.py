"""Texts in which `*` stands for any text, also none: `llama-*`, `*-instruct`, `a*b*c`.

Each part between two stars is looked for once, from where the one before it ends: the time is linear in the text for
each star, whatever the text is. (A regular expression would take a power of its length.)
"""

from __future__ import annotations

from typing import Final

STAR: Final = b"*"


class TextPattern:
    """See the module. text: as it was written; what is compared is its UTF-8."""

    __slots__ = ("_first", "_last", "_middle", "_n_fixed", "_whole", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        parts = text.encode("utf-8", "surrogatepass").split(STAR)
        self._whole = parts[0] if len(parts) == 1 else None
        self._first = parts[0]
        self._last = parts[-1]
        self._middle = [part for part in parts[1:-1] if part]
        self._n_fixed = len(self._first) + len(self._last)

    def matches(self, value: bytes) -> bool:
        """Is this such a text?"""
        if self._whole is not None:
            return value == self._whole
        if len(value) < self._n_fixed or not value.startswith(self._first) or not value.endswith(self._last):
            return False
        at = len(self._first)
        end = len(value) - len(self._last)
        for part in self._middle:
            at = value.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True
