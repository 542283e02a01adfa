"""Command line: print what each piece costs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from benchmarks.micro import access_log, bodies, books, exposition, heads, limits, snapshot, strategies
from benchmarks.micro.timing import Piece, cost_us


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.micro", description="Microseconds per call of hot code."
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only pieces whose name contains one of these")
    words = parser.parse_args().words
    for piece in all_pieces():
        if not words or any(word in piece.name for word in words):
            print(f"{cost_us(piece):8.3f} us  {piece.name}", flush=True)
    return 0


def all_pieces() -> Iterator[Piece]:
    for module in (heads, access_log, strategies, bodies, books, limits, exposition, snapshot):
        yield from module.pieces()


if __name__ == "__main__":
    sys.exit(main())
