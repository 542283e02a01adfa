"""Reads the raw HTTP corpus: one case a line, `id | source | verdict | bytes` (see the head of each file)."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path

_REPEAT = re.compile(rb"\{\{(.+?)\*(\d+)\}\}", re.DOTALL)
_ENDS = {b"{{FIN}}": "fin", b"{{RST}}": "rst"}


@dataclass(frozen=True)
class Case:
    """One line. `kind` is the first word of the verdict, `codes` its statuses, `options` its name=value conditions."""

    id: str
    source: str
    kind: str
    codes: frozenset[int]
    count: int
    data: bytes
    end: str  # "", "fin" or "rst": what the sender does after the last byte
    flags: frozenset[str]
    options: dict[str, bytes]
    fields: dict[str, str] = field(default_factory=dict)  # +name=value
    contains: dict[str, str] = field(default_factory=dict)  # ~name=part
    absent: frozenset[str] = frozenset()  # !name

    @property
    def expected_method(self) -> str:
        return self.data.split(b" ", 1)[0].strip().decode("latin-1")

    @property
    def expected_target(self) -> str:
        """The `target=` of the verdict, else the target as it was sent."""
        if "target" in self.options:
            return self.options["target"].decode("latin-1")
        return self.data.split(b" ", 2)[1].decode("latin-1")

    @property
    def expected_body(self) -> bytes:
        """The `body=` of the verdict, else what follows the first blank line (up to the first Content-Length)."""
        if "body" in self.options:
            return self.options["body"]
        head, _, body = self.data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length:\s*(\d+)", head)
        if self.kind == "relay":
            return body
        return body[: int(length[1])] if length else b""


def unescape(text: str) -> bytes:
    """Python escapes, then `{{x*N}}` repetitions."""
    raw = codecs.escape_decode(text.encode("latin-1"))[0]
    assert isinstance(raw, bytes)
    return _REPEAT.sub(lambda found: found[1] * int(found[2]), raw)


def _condition(word: str, case: dict[str, dict[str, str]], options: dict[str, bytes]) -> None:
    name, _, value = word.partition("=")
    data = unescape(value)
    if name[0] == "+":
        case["fields"][name[1:]] = data.decode("latin-1")
    elif name[0] == "~":
        case["contains"][name[1:]] = data.decode("latin-1")
    else:
        options[name] = data


def parse_line(line: str) -> Case:
    """One case from its line."""
    name, source, verdict, text = line.split(" | ", 3)

    kind, *words = verdict.split()
    codes: frozenset[int] = frozenset()
    count = 1
    flags = set()
    absent = set()
    options: dict[str, bytes] = {}
    checked: dict[str, dict[str, str]] = {"fields": {}, "contains": {}}
    for word in words:
        if re.fullmatch(r"[\d,]+", word):
            if kind == "forward":
                count = int(word)
            else:
                codes = frozenset(map(int, word.split(",")))
        elif word[0] == "!":
            absent.add(word[1:])
        elif "=" in word:
            _condition(word, checked, options)
        else:
            flags.add(word)
    data, end = unescape(text), ""
    for marker, how in _ENDS.items():
        if data.endswith(marker):
            data, end = data[: -len(marker)], how
    return Case(
        name, source, kind, codes, count, data, end, frozenset(flags), options, absent=frozenset(absent), **checked
    )


def load(path: Path) -> list[Case]:
    """Every case of a file; two with one id are an error."""
    lines = path.read_text(encoding="latin-1").split("\n")
    cases = [parse_line(line) for line in lines if line.strip() and not line.startswith("#")]
    ids = [case.id for case in cases]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{path}: an id occurs twice: {sorted({name for name in ids if ids.count(name) > 1})}")
    return cases
