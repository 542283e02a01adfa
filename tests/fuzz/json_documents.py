"""Random JSON documents around what routes by body ask for, and what the standard parser makes of them.

Nested, with any spelling of names and texts, names that come twice, longer than what is looked at, broken off, and with
octets that are others.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from lbproxy.protocol.json_value import LIMIT

NAMES = ("model", "stream", "a", "b", "list", "messages", "x", "", "m", "models", "Model", "ü", '"', "\\", "/")
TEXTS = (
    "llama-3",
    "llama-",
    "llama",
    "qwen",
    "x",
    "xy",
    "",
    "true",
    "\U0001f600",
    '"}',
    "]",
    "\\",
    "\n",
    "llama-\\u0000",
)
CONDITIONS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("/model", "llama-*"),),
    (("/a/b", "*"), ("/stream", "true")),
    (("/list/1", "x*"),),
)
"""Of three routes; a fourth takes the rest."""


class Raw(str):
    """A number as it is written."""


class Pairs(list[tuple[str, object]]):
    """An object with all of its names."""


@dataclass(frozen=True, slots=True)
class Document:
    """is_whole: it is JSON, and all of it is looked at. has_doubles: names on the way to what is asked come twice."""

    data: bytes
    is_whole: bool
    has_doubles: bool
    found: tuple[bool, ...]  # by the standard parser: does each of CONDITIONS hold?


def document(rng: random.Random) -> Document:
    """One more."""
    data = _written(rng, _object(rng, 0)).encode("utf-8", "surrogatepass")
    kind = rng.random()
    if kind < 0.02:
        data = _long(rng, data)
    elif kind < 0.12:
        data = data[: rng.randrange(len(data))]
    elif kind < 0.22:
        at = rng.randrange(len(data))
        data = data[:at] + bytes([rng.choice(b'"\\{}[]:,0a \x00\xff')]) + data[at + rng.randrange(2) :]
    return judged(data)


def judged(data: bytes) -> Document:
    """What the standard parser makes of it; what it refuses holds nothing."""
    try:
        value = json.loads(data, object_pairs_hook=Pairs, parse_int=Raw, parse_float=Raw)
    except (ValueError, RecursionError):
        return Document(data, False, False, tuple(False for _ in CONDITIONS))
    verdicts = [[_at(value, pointer) for pointer, _ in each] for each in CONDITIONS]
    found = tuple(
        all(_fits(text, wanted) for (text, _), (_, wanted) in zip(verdict, each, strict=True))
        for verdict, each in zip(verdicts, CONDITIONS, strict=True)
    )
    has_doubles = any(doubles for verdict in verdicts for _, doubles in verdict)
    return Document(data, len(data) <= LIMIT, has_doubles, found)


def _at(value: object, pointer: str) -> tuple[str, bool]:
    has_doubles = False
    for name in pointer[1:].split("/"):
        if isinstance(value, Pairs):
            values = [item for key, item in value if key == name]
            has_doubles = has_doubles or len(values) > 1
            value = values[-1] if values else None
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return "", has_doubles
    if isinstance(value, bool):
        return ("true" if value else "false"), has_doubles
    return (value if isinstance(value, str) else ""), has_doubles


def _fits(text: str, wanted: str) -> bool:
    head, star, _ = wanted.partition("*")
    return bool(text) and (text.startswith(head) if star else text == wanted)


# --- what is written --------------------------------------------------------------------------------------------------


def _object(rng: random.Random, depth: int) -> Pairs:
    made = Pairs()
    for _ in range(rng.randrange(5 if depth else 7)):
        made.append((rng.choice(NAMES), _value(rng, depth + 1)))
    if not depth:
        for name, usual in (("model", "llama-3"), ("stream", True), ("a", Pairs([("b", "y")])), ("list", ["q", "x1"])):
            if rng.random() < 0.5:
                made.insert(rng.randrange(len(made) + 1), (name, usual))
    return made


def _value(rng: random.Random, depth: int) -> object:
    kind = rng.random()
    if depth < 4 and kind < 0.15:
        return _object(rng, depth)
    if depth < 4 and kind < 0.3:
        return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind < 0.65:
        return rng.choice(TEXTS)
    return rng.choice((None, True, False, 0, -1.5e-7, 10**20, 3.25))


def _written(rng: random.Random, value: object) -> str:
    space = rng.choice(("", "", "", " ", "\n\t", "\r\n "))
    if isinstance(value, Pairs):
        pairs = [f"{_text(rng, name)}{space}:{space}{_written(rng, item)}" for name, item in value]
        return "{" + space + f"{space},{space}".join(pairs) + space + "}"
    if isinstance(value, list):
        return "[" + space + f",{space}".join([_written(rng, item) for item in value]) + space + "]"
    return _text(rng, value) if isinstance(value, str) else json.dumps(value)


def _text(rng: random.Random, text: str) -> str:
    if rng.random() < 0.8:
        return json.dumps(text, ensure_ascii=rng.random() < 0.5)
    return '"' + "".join(f"\\u{ord(char):04X}" if ord(char) < 0x10000 else char for char in text) + '"'


def _long(rng: random.Random, data: bytes) -> bytes:
    """Longer than what is looked at: by what stands before, or by what stands behind."""
    filler = rng.choice((b'"' + b"y" * LIMIT + b'"', b"[" + b"1.5," * (LIMIT // 4) + b"2]", b" " * LIMIT + b"0"))
    if data == b"{}" or not data.startswith(b"{") or b":" not in data:
        return b'{"filler": ' + filler + b"}"
    if rng.random() < 0.5:
        return b'{"filler": ' + filler + b"," + data[1:]
    return data[: data.rindex(b"}")] + b', "filler": ' + filler + b"}"
