"""Of a common text libyaml and PyYAML's own parser hear the same, at the same places; else PyYAML's is believed."""

from __future__ import annotations

import random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.common_yaml import HAS_LIBYAML, is_common

USUAL = ("a", "b1", "127.0.0.1:80", "10s", "/p/", "x y", "${A}", "${A:-b}", ":80", "'a'", '"b: c"', "'it''s'")
ODD = (
    *("a:b", "-1", "x.*", "a,b", "a[0]", "a?", "http://h/x", "a&b", "a!", "$", "a  b", "|", ">", "*a", "&a", "a:"),
    *("- b", "a -", "~", "a(b)", "%a", "=", "<<", "a: b", "' # x'", "'[a'", "'a' b", "\"a\"'b'", '"a\\n\\"\\\\"', "^a"),
    *(":-a", "a:-b", ":.", "'", '"', "[", "}", "!!str a", "? a", "@a", "`a", "\u00e4", "#a", "-", "--- a", "\t"),
    *("'\x85'", "'\u2028'", "'\r'", '"\r"', "'\xa0'", "'\ufeff'", "'\U0001f600' # c", "'\u00e4' # \u00e4"),
)
TOKENS = ("[", "]", "{", "}", ",", " ", "a", "b: ", "'q'", "'q': ", "a: ", ":", "#")
KEYS = ("k{}", "'q{}'", "a/10.0.0.1:8{}", '"d{}"')


def value(rng: random.Random, depth: int) -> str:
    drawn = rng.random()
    if depth == 0 or drawn < 0.4:
        return rng.choice(USUAL if rng.random() < 0.9 else ODD)
    if drawn < 0.45:
        return "".join(rng.choice(TOKENS) for _ in range(rng.randrange(1, 8)))
    room = rng.choice(("", "", " "))
    items = [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if drawn < 0.7:
        return f"[{room}{rng.choice((', ', ',', ' , ')).join(items)}{room}]"
    colon = rng.choice((": ", ": ", ": ", ":  ", ":", " : "))
    return f"{{{room}{', '.join(rng.choice(KEYS).format(n) + colon + item for n, item in enumerate(items))}{room}}}"


def block(rng: random.Random, indent: int, depth: int) -> list[str]:
    lines: list[str] = []
    is_list = rng.random() < 0.3
    for number in range(rng.randrange(1, 4)):
        start = " " * indent + ("- " if is_list else rng.choice(KEYS).format(number) + ":")
        drawn = rng.random()
        if depth and drawn < 0.4:
            below = block(rng, indent + rng.choice((2, 2, 2, 4, 1, 0)), depth - 1)
            if is_list:
                below[0] = start + below[0].lstrip()
            else:
                lines.append(start + rng.choice(("", "", "", " ", "  # c: d [x")))
            lines += below
        elif drawn < 0.5:
            lines.append(start.rstrip())
        else:
            end = rng.choice(("", "", "", " # don't [x", " ", "#x"))
            lines.append(f"{start}{'' if is_list else ' '}{value(rng, 2)}{end}")
        if rng.random() < 0.1:
            lines.append(rng.choice(("", " ", " " * rng.randrange(9) + "# \u00e4 'x", " x", "---")))
    return lines


def text_of(rng: random.Random) -> str:
    lines = block(rng, 0, 3)
    if rng.random() < 0.2:
        at = rng.randrange(len(lines))
        lines[at] = " " * rng.randrange(5) + lines[at].lstrip()
    if rng.random() < 0.1:
        del lines[rng.randrange(len(lines))]
    start = rng.choice(("---\n", "# c\n---\n", "\n--- \n", "---\n---\n")) if rng.random() < 0.1 else ""
    return start + "\n".join(lines) + rng.choice(("\n", "", "\n\n", "\n  "))


def heard(text: str, loader: type[yaml.SafeLoader | yaml.CSafeLoader]) -> list[tuple[object, ...]] | None:
    """What nodes are made of; None where the parser refuses the text."""
    found: list[tuple[object, ...]] = []
    try:
        for event in yaml.parse(text, Loader=loader):
            kind = type(event).__name__
            start, end = event.start_mark, event.end_mark
            assert start is not None and end is not None
            if isinstance(event, yaml.ScalarEvent):
                found.append(
                    (kind, start.line, start.column, end.line, event.value, event.implicit[0], event.tag, event.anchor)
                )
            elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                found.append((kind, start.line, start.column, bool(event.flow_style), event.tag, event.anchor))
            else:
                found.append((kind,))
    except yaml.YAMLError:
        return None
    return found


@pytest.mark.skipif(not HAS_LIBYAML, reason="this PyYAML was built without libyaml")
@given(st.randoms(use_true_random=False))
def test_both_parsers_hear_the_same_of_a_common_text(rng: random.Random) -> None:
    for _ in range(2):
        text = text_of(rng)
        if is_common(text):
            own, quick = heard(text, yaml.SafeLoader), heard(text, yaml.CSafeLoader)
            assert quick in (None, own), text


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n",
        "# c\n\n---\na: {b: [c, 'd: e', {f: \"g\"}]}  # said\n- ".removesuffix("- "),
        "a:\n  - b: :80\n    c: ${D:-e}\n  -\n  - d\n'e': f g",
        "a:\n- b\n- c: d\n",
        "a: '\u00e4\u00f6' # \u00fc\n",
    ],
)
def test_common(text: str) -> None:
    assert is_common(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "- a\n",
        "a: &b c\n",
        "a: *b\n",
        "a: !!str b\n",
        "a: |\n  b\n",
        "a: b\n  c\n",
        "a: [b,\n  c]\n",
        "a: {b}: c\n",
        "a: 'b\n  c'\n",
        'a: "\\x41"\n',
        "a:\tb\n",
        "a: \u00e4\n",
        "a: b\r\n",
        "a: b\n---\nc: d\n",
        "a: b\n...\n",
        "? a\n: b\n",
        "%YAML 1.2\n---\na: b\n",
        "a: {b: }\n",
        "a: " + "b" * 1000 + "\n",
        "a: ]\n",
        " a: b\n",
        "a: 'b\rc'\n",
        "a: 'b\x85c'\n",
        'a: "b\u2028c"\n',
        "a: b # c\x85d: e\n",
        "a: 'b\x00'\n",
    ],
)
def test_not_common(text: str) -> None:
    assert not is_common(text)
