"""The servers that were tried for a request, as Proxy-Status says them (RFC 9209 section 2.1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy.telemetry.accesslog import Try

NAME_LIMIT: Final = 64  # characters of a server's name; an address has up to 56
SHOWN: Final = 8  # attempts; how many there were beyond these is said as a number


def details(word: str, tries: Sequence[Try]) -> bytes:
    """The value of `details`: the fault's word, and behind it each attempt, if there were several, in their order.

    Never longer than 2 KiB, so that no client's limit for heads is near.
    """
    if not tries:
        return sf_string(word)
    items = [f"{_shortened(name)} {reason} {round(seconds * 1000)}ms" for name, reason, seconds in tries[:SHOWN]]
    if len(tries) > SHOWN:
        items.append(f"{len(tries) - SHOWN} more")
    return sf_string(f"{word}; tries: {', '.join(items)}")


def sf_string(text: str) -> bytes:
    """A String of RFC 8941 section 3.3.3: printable ASCII in quotes. Every other character becomes `?`."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.encode("ascii")


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LIMIT else f"{name[: NAME_LIMIT - 3]}..."
