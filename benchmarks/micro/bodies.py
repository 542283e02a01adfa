"""What it costs to look into a JSON body of 1 KiB, and to choose a route and a pool by it.

python -P benchmarks/installed.py benchmarks.micro.bodies
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.micro.timing import Piece, cost_us
from lbproxy.domain.splitting import MOST_POOLS, Split
from lbproxy.domain.text_pattern import TextPattern
from lbproxy.protocol.json_value import JsonValue

MODEL: Final = (b"model",)
_TALK: Final[list[object]] = [
    {"role": "system", "content": "You are a helpful assistant. " * 6},
    {"role": "user", "content": "Say what this is.\n" * 38},
]
_ROWS: Final[list[object]] = [[5.1, 3.5, 1.4, 0.2]] * 47
BODIES: Final[tuple[tuple[str, bytes], ...]] = tuple(
    (name, json.dumps(value).encode())
    for name, value in (
        ("a chat, model first", {"model": "llama-3", "messages": _TALK, "temperature": 0.7, "stream": True}),
        ("a chat, model last", {"messages": _TALK, "temperature": 0.7, "stream": True, "model": "llama-3"}),
        ("numbers, model first", {"model": "llama-3", "instances": _ROWS}),
        ("numbers, model last", {"instances": _ROWS, "model": "llama-3"}),
    )
)


def pieces() -> Iterator[Piece]:
    pattern = TextPattern("llama-*")
    for name, body in BODIES:
        yield Piece(f"body: 1 KiB, {name}: key", _search(body, is_exact=False))
        yield Piece(f"body: 1 KiB, {name}: route", _search(body, is_exact=True))
    split = Split(("stable", "canary"), (95, 5), None, [0] * MOST_POOLS, 0)
    yield Piece("body: a pattern", lambda: pattern.matches(b"llama-3-70b-instruct"))
    yield Piece("split: by chance", lambda: split.pick(b"", 0.5))
    yield Piece("split: by a key", lambda: split.pick(b"user-1234", 0.5))


def _search(body: bytes, *, is_exact: bool) -> Callable[[], object]:
    def call() -> bytes:
        search = JsonValue(MODEL, is_exact=is_exact)
        search.feed(body, is_last=True)
        return search.value

    return call


def main() -> int:
    for piece in pieces():
        print(f"{cost_us(piece, target_s=0.005):8.3f} us  {piece.name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
