"""Bytes that are kept in the pieces in which they came, at a price that does not depend on who sent them how.

A bytes object of one or two octets takes 40 of memory, and whoever sends a body in such pieces would take 20 times what
is counted. So small ones are joined to the last; each is copied a bounded number of times.
"""

from __future__ import annotations

from typing import Final

SMALL: Final = 2048
SMALL_BODY: Final = 16 * 1024  # of a message: joined with the head for one write; longer ones are not copied


def add_piece(pieces: list[bytes], data: bytes) -> None:
    """Append `data`, which is not empty."""
    if len(data) < SMALL and pieces and len(pieces[-1]) < SMALL:
        pieces[-1] += data
    else:
        pieces.append(data)
