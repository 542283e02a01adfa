"""YAML as config files have it, and libyaml for reading that: twenty times as quick as PyYAML's own parser.

The two parsers differ in rare notations: in what they take, where they say it stands, and in what they complain of. So
libyaml gets only text in which every line has one of the few forms that are told here, of which a property test holds
that both read the same; and where it finds fault PyYAML is asked, whose words lbproxy.config.syntax knows.

In such a text no value goes on in a line that is not indented more than its key, so each key of the first level, and
what is below it, can be read by itself (lbproxy.config.blocks).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

import yaml

_MOST: Final = 1000
"""Characters of a line; a key of more than 1024 is none (YAML 1.2.2, section 7.4.2)."""

_LETTERS: Final = (
    r"\u00a1-\u1fff"  # without what is a line break in YAML (U+0085, U+2028), or perhaps one column or two
)
_QUOTED: Final = rf"\"(?:[ !#-\[\]-~{_LETTERS}]|\\[\"\\nrt])*+\"|'(?:[ -&(-~{_LETTERS}]|'')*+'"
_INNER: Final = r"[A-Za-z0-9_./*+@=~^$%()|;<>-]|:(?=[A-Za-z0-9_./])"
_WORDS: Final = (
    rf"(?:[A-Za-z0-9_./$^]|:(?=[A-Za-z0-9]))(?:{_INNER}|:(?=-)|[{{}}\[\],&!?]|(?<=[A-Za-z0-9]) (?=[A-Za-z0-9]))*+"
)
_KEY: Final = rf"(?:[A-Za-z0-9_./](?:{_INNER})*+|{_QUOTED})"
_BRACKETS: Final = rf"[\[{{](?:[ ,\[\]{{}}]|(?:[A-Za-z0-9_./$](?:{_INNER})*+|{_QUOTED})(?:: ++(?![ ,\]}}]))?)*+"
_VALUE: Final = rf"(?:{_WORDS}|{_QUOTED}|{_BRACKETS})"
_COMMENT: Final = rf"#[ -~{_LETTERS}]*+"
_LINE: Final = (
    rf" *+(?:(?:{_COMMENT})?|(?:- ++)*+(?:{_KEY}:(?: ++{_VALUE})?|-|(?<=- ){_VALUE}) *+(?:(?<= ){_COMMENT})?)\n"
)
_BEFORE: Final = rf"(?: *+(?:{_COMMENT})?\n)*+(?:--- *+\n(?: *+(?:{_COMMENT})?\n)*+)?"
_TEXT: Final = rf"{_BEFORE}(?={_KEY}:)(?:{_LINE})*+"
HAS_LIBYAML: Final = bool(yaml.__with_libyaml__)


def is_common(text: str) -> bool:
    """Whether the text is a mapping in block style, and each of its lines has one of the forms."""
    whole = text if text.endswith("\n") else text + "\n"
    text_re, unread_re = _compiled()
    lines = whole.split("\n")
    if text_re.fullmatch(whole) is None or max(map(len, lines)) > _MOST:
        return False
    # A bracket that is not closed in its line takes those below with it. Any order of them but the right one is
    # refused by the parser.
    for line in lines:
        if "[" in line or "{" in line or "]" in line or "}" in line:
            read = unread_re.sub("", line)
            if read.count("[") != read.count("]") or read.count("{") != read.count("}"):
                return False
    return True


@cache
def _compiled() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Made when a file is read, since most commands read none."""
    return re.compile(_TEXT), re.compile(rf"{_QUOTED}|(?:^|(?<= ))#.*")


def events(text: str) -> Iterator[yaml.Event]:
    """What libyaml reads in a common text. Raises yaml.YAMLError where that is no YAML for it."""
    return yaml.parse(text, Loader=yaml.CSafeLoader)
