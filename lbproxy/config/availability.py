"""Keys and values that are modelled and documented in the design, but whose behaviour is not built yet.

They are refused as "not available in this version" and absent from the JSON Schema and the manual. To make one
available, remove its line here; tests/unit/config/test_availability.py holds a config for every line. `*` stands for an
index of a list or the name of a pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from lbproxy.config.problems import Path

UNAVAILABLE_KEYS: Final[tuple[str, ...]] = ()

UNAVAILABLE_VALUES: Final[Mapping[str, tuple[str, ...]]] = {}


def unavailable_paths(data: object) -> Iterator[tuple[Path, object]]:
    """Every path in the data that is not available, with the refused value, or None where the key itself is refused."""
    for pattern in UNAVAILABLE_KEYS:
        for path, _ in matching(data, tuple(pattern.split("."))):
            yield path, None
    for pattern, values in UNAVAILABLE_VALUES.items():
        for path, value in matching(data, tuple(pattern.split("."))):
            if isinstance(value, str) and value in values:
                yield path, value


def matching(data: object, pattern: tuple[str, ...], path: Path = ()) -> Iterator[tuple[Path, object]]:
    """The paths of the data that a pattern describes, with their values."""
    if not pattern:
        yield path, data
        return
    head, rest = pattern[0], pattern[1:]
    if isinstance(data, dict):
        for name in list(data) if head == "*" else [head] if head in data else []:
            yield from matching(data[name], rest, (*path, name))
    elif isinstance(data, list) and head == "*":
        for index, item in enumerate(data):
            yield from matching(item, rest, (*path, index))
