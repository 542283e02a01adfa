"""Reading text of strangers back from a log, as docs/logs.md says that it can be."""

from __future__ import annotations

import re

_ESCAPE_RE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([\\\"]))")


def to_wire(text: str) -> bytes:
    """The bytes that a text stands for. Raises UnicodeEncodeError for text that did not come from the network."""
    return text.encode("latin-1")


def unescaped(text: str) -> str:
    """What was in a field of `common` or `combined`, or in a line of the text log."""

    def char_of(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        return chr(int(code, 16)) if code else match[4]

    return _ESCAPE_RE.sub(char_of, text)
