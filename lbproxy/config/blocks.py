"""A common text in pieces that can be read by themselves: one for each key of the first level, one for each pool.

That is right because of what lbproxy.config.common_yaml says of such texts: no value goes on in a line that is not
indented more than its key, there are no anchors, and brackets close in their line. What is no YAML in the whole shows
in a piece: by itself it is no mapping with one key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

POOLS: Final = "pools"
_TOP: Final = re.compile(r"^[^ #\n-]", re.MULTILINE)
_POOLS: Final = re.compile(rf"{POOLS}: *+(?:#.*)?\n(?: *+(?:#.*)?\n)*+( ++)(?=[^ #\n-])")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a file. text: of which this key, or this pool, is all that there is.

    line: how many lines of the file come before the first of the text. is_pool: the text is `pools:` with one pool.
    """

    text: str
    line: int
    is_pool: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """All pieces, in the order of the file. first_line: that of the first key, from 1. pools_line: that of `pools:`, 0
    if it was not cut. pool_line, pool_column: where the first pool begins."""

    blocks: tuple[Block, ...]
    first_line: int
    pools_line: int = 0
    pool_line: int = 0
    pool_column: int = 0


def cut(text: str) -> Cut | None:
    """The pieces of a common text, None where `pools` is given twice."""
    starts = [found.start() for found in _TOP.finditer(text)]
    line = first = text.count("\n", 0, starts[0])
    blocks: list[Block] = []
    pools = (0, 0, 0)
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        piece = text[start:end]
        inside = _POOLS.match(piece)
        if inside is None:
            blocks.append(Block(piece, line))
        else:
            if pools[0]:
                return None
            found = list(_pools(piece, inside, line))
            blocks += found
            pools = line + 1, found[0].line + 2, len(inside[1]) + 1
        line += piece.count("\n")
    return Cut(tuple(blocks), first + 1, *pools)


def _pools(piece: str, inside: re.Match[str], line: int) -> Iterator[Block]:
    """One for each pool, each below a line of its own that says `pools:`."""
    indent = inside[1]
    starts = [found.start() for found in re.finditer(rf"^{indent}(?=[^ #\n-])", piece, re.MULTILINE)]
    line += piece.count("\n", 0, starts[0])
    for start, end in zip(starts, [*starts[1:], len(piece)], strict=True):
        pool = piece[start:end]
        yield Block(f"{POOLS}:\n{pool}", line - 1, is_pool=True)
        line += pool.count("\n")
