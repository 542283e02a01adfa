"""Octets as a number of the machine, by which eight of them are compared at once (`word_at`)."""

from __future__ import annotations

from lbproxy.compiling import i64, word_at


def mask_of(n_octets: int) -> i64:
    """The word in which so many octets, at most eight, have all bits, and the others none."""
    return word_at((b"\xff" * n_octets).ljust(8, b"\0"), 0)
