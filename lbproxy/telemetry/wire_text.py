r"""Text of strangers in logs: printable, on one line, and reversible.

Bytes of the network become text one for one: byte 0xE9 is the character U+00E9 (ISO 8859-1), so no byte is lost or made
up, whatever it was meant to be. What is not fit for a line is escaped when the line is made:

- JSON has its own escapes (`\u00e9`); reading the JSON and encoding the value as ISO 8859-1 gives the bytes.
- `common` and `combined` are printable ASCII: `\"` and `\\` for `"` and `\`, `\xe9` for any other byte.
- The text log escapes control characters and the backslash, `\x0a`, `\u2028`; other letters stay readable.
"""

from __future__ import annotations

import re
from typing import Final

# Controls, what ends a line for some readers, and halves of characters, which no file can hold.
_NOT_FOR_A_LINE: Final = re.compile(r"[\x00-\x1f\\\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def from_wire(raw: bytes) -> str:
    """Bytes as the text that stands for them."""
    return raw.decode("latin-1")


def _escape(char: str) -> str:
    code = ord(char)
    if char in '"\\':
        return "\\" + char
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def quotable(text: str) -> str:
    """For a place between quotes, in printable ASCII."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(char if " " <= char <= "~" and char not in '"\\' else _escape(char) for char in text)


def without_spaces(text: str) -> str:
    """The same for a place that ends at a space."""
    quoted = quotable(text)
    return quoted.replace(" ", "\\x20") if " " in quoted else quoted


def one_line(text: str) -> str:
    """For a line of its own; letters of every script stay."""
    return _NOT_FOR_A_LINE.sub(lambda match: _escape(match.group()), text)
