"""Tabs that YAML 1.2 allows and PyYAML refuses: white space between tokens, as JSON writers and people use it.

Each becomes one space, so places stay what they were. Tabs that indent a block are left, and refused later, because
nobody can say how wide they are; so are those inside of texts.
"""

from __future__ import annotations

import re
from typing import Final

_BLOCK_TEXT: Final = re.compile(r"(?:^|[:\-?]\s+)[|>][-+0-9]{0,2}\s*(?:#.*)?$")


def without_separating_tabs(text: str) -> str:
    """The text with a space for every tab that only separates."""
    if "\t" not in text:
        return text
    lines = _Lines()
    return "".join(lines.line(line) for line in text.splitlines(keepends=True))


class _Lines:
    """What is known at the end of each line: open quotes, open brackets, the indentation of a text block."""

    def __init__(self) -> None:
        self._quote = ""
        self._depth = 0
        self._block_indent: int | None = None

    def line(self, line: str) -> str:
        if self._block_indent is not None:
            indent = len(line) - len(line.lstrip(" "))
            if not line.strip() or indent > self._block_indent:
                return line
            self._block_indent = None
        at, made = 0, list(line)
        body = line.rstrip("\r\n")
        while at < len(body):
            char = body[at]
            if self._quote:
                if char == "\\" and self._quote == '"':
                    at += 1
                elif char == self._quote:
                    self._quote = ""
            elif char in "\"'" and self._begins_token(body, at):
                self._quote = char
            elif char == "#" and (at == 0 or body[at - 1] in " \t"):
                break
            elif char in "[{" and (self._depth or self._begins_token(body, at)):
                self._depth += 1
            elif char in "]}" and self._depth:
                self._depth -= 1
            elif char == "\t" and self._separates(body, at):
                made[at] = " "
            at += 1
        if not self._quote and not self._depth and _BLOCK_TEXT.search(body):
            self._block_indent = len(body) - len(body.lstrip(" "))
        return "".join(made)

    def _begins_token(self, body: str, at: int) -> bool:
        before = body[:at].rstrip(" \t")
        return not before or before[-1] in ",[{" or (before[-1] in ":-?" and (before != body[:at] or self._depth > 0))

    def _separates(self, body: str, at: int) -> bool:
        before, after = body[:at].rstrip(" \t"), body[at:].lstrip(" \t")
        if not after or after[0] == "#":
            return True
        if not before:
            return self._depth > 0
        return before[-1] in ":-?,[{" or (self._depth > 0 and (after[0] in ",]}:" or before[-1] in "]}\"'"))
