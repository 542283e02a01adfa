"""Why a text is not YAML, told at the line that is wrong and not where the parser gave up.

A parser notices an open quote at the end of the file and a missing colon in the line below. Everything here is a guess
from the text around its mark, made only after it refused the file.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import yaml

SAME_COLUMN: Final = "keys of one mapping begin in the same column, and so do the items of a list"
_OPENING: Final = {"]": "[", "}": "{"}
_KEY: Final = re.compile(r"(?:- +)*([\w.-]+)")
_TWO_KEYS: Final = re.compile(r"\s*(?:- +)*([\w.-]+):\s+([\w.-]+):\s*(?:#.*)?$")
_WITH_VALUE: Final = re.compile(r"(?:- +)*[\w.\"'-]+:\s+[^\s|>#&\[{]")
_IN_BRACKETS: Final = re.compile(r"(?:^|[\s,\[-])(\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\](:[0-9-]+)?)")


@dataclass(frozen=True, slots=True)
class Explained:
    """Line and column from 1, the message and what to do."""

    line: int
    column: int
    message: str
    suggestion: str = ""


@dataclass(frozen=True, slots=True)
class _Case:
    """The parser's complaint and the text."""

    lines: list[str]
    line: int
    column: int
    start: tuple[int, int] | None  # of what the parser was at
    context: str
    problem: str

    @property
    def written(self) -> str:
        return self.lines[self.line - 1] if self.line <= len(self.lines) else ""

    @property
    def indent(self) -> int:
        return len(self.written) - len(self.written.lstrip())

    def above(self) -> int:
        """The number of the last line before that says something, 0 if there is none."""
        for number in range(min(self.line - 1, len(self.lines)), 0, -1):
            if self.lines[number - 1].strip() and not self.lines[number - 1].lstrip().startswith("#"):
                return number
        return 0


def explain(error: yaml.MarkedYAMLError, text: str) -> Explained:
    """What to tell a user about an error of the parser."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    start = error.context_mark
    case = _Case(
        text.split("\n"),
        line,
        column,
        (start.line + 1, start.column + 1) if start else None,
        error.context or "",
        error.problem or "",
    )
    for guess in _GUESSES:
        if (found := guess(case)) is not None:
            return found
    said = " ".join(part for part in (case.context, case.problem) if part)
    return Explained(line, column, f"is not YAML: {said}")


# --- quotes -----------------------------------------------------------------------------------------------------------


def _open_quote(case: _Case) -> Explained | None:
    """A quote that is not closed in its line, and not properly in a later one."""
    for number, line in enumerate(case.lines[: case.line], start=1):
        at = _quote_open_at(line)
        if at is None or _is_closed_properly(case.lines, number - 1, at):
            continue
        return Explained(number, at + 1, f"the quote {line[at]} that opens here is not closed", "close it in this line")
    return None


def _quote_open_at(line: str) -> int | None:
    at = 0
    while at < len(line):
        char = line[at]
        if char == "#" and (at == 0 or line[at - 1] in " \t"):
            return None
        if char in "\"'" and (not line[:at].strip() or line[:at].rstrip()[-1] in ":-,[{?"):
            end = _end_of_quote(line, at)
            if end is None:
                return at
            at = end
        at += 1
    return None


def _end_of_quote(text: str, at: int) -> int | None:
    """Where the quoted text that opens at `at` closes."""
    quoted = re.compile(r'"(?:[^"\\]|\\.)*+"' if text[at] == '"' else r"'(?:[^']|'')*+'", re.DOTALL).match(text, at)
    return quoted.end() - 1 if quoted else None


def _is_closed_properly(lines: list[str], index: int, at: int) -> bool:
    rest = "\n".join(lines[index:])
    end = _end_of_quote(rest, at)
    return end is not None and re.match(r"\s*(?:[,\]}:#]|\n|$)", rest[end + 1 :]) is not None


def _bad_escape(case: _Case) -> Explained | None:
    if "double-quoted" not in case.context or ("escape" not in case.problem and "hexdecimal" not in case.problem):
        return None
    message = "in double quotes a \\ begins an escape, and this is none"
    return Explained(case.line, case.column, message, "use single quotes, or write \\\\")


# --- characters -------------------------------------------------------------------------------------------------------


def _tab(case: _Case) -> Explained | None:
    if "'\\t'" not in case.problem and "\t" not in case.written[: case.indent]:
        return None
    column = case.written.find("\t") + 1 or case.column
    return Explained(case.line, column, "this line is indented with a tab", "indent with spaces, not tabs")


def _odd_beginning(case: _Case) -> Explained | None:
    found = re.search(r"found character '(.)' that cannot start any token", case.problem)
    if found:
        return Explained(case.line, case.column, f"a value cannot begin with {found[1]}", "put it in quotes")
    if case.context in ("while scanning an alias", "while scanning an anchor"):
        line, column = case.start or (case.line, case.column)
        char = case.lines[line - 1][column - 1 : column]
        return Explained(line, column, f"a value that begins with {char} needs quotes", f'write "{char}..."')
    return None


# --- colons -----------------------------------------------------------------------------------------------------------


def _no_colon(line: int, text: str) -> Explained:
    """A line that should have been `key: value`."""
    column = len(text) - len(text.lstrip()) + 1
    said = text.strip()
    key = _KEY.match(said)
    if key is None:
        return Explained(line, column, "this line is no `key: value`", "a value stands in the line of its key")
    name, rest = key[0], said[key.end() :].strip()
    if rest.startswith(":"):
        shown = f"`{name}: {rest[1:].strip()}`"
        return Explained(line, column, "there is no space behind the colon", f"did you mean {shown}?")
    value = rest.lstrip("= ")
    shown = f"`{name}: {value}`" if value else f"`{name}:`"
    return Explained(line, column, "this line has no colon", f"did you mean {shown}?")


def _missing_colon(case: _Case) -> Explained | None:
    if "could not find expected ':'" not in case.problem or case.start is None:
        return None
    text = case.lines[case.start[0] - 1]
    return None if text.lstrip().startswith(("{", "[")) else _no_colon(case.start[0], text)


def _second_value(case: _Case) -> Explained | None:
    """A `: ` where a value stands already."""
    if not case.problem.startswith("mapping values are not allowed"):
        return None
    above = case.above()
    text = case.lines[above - 1] if above else ""
    if above and re.fullmatch(r"\s*(?:- +)*[\w.-]+\s*", text):
        return _no_colon(above, text)
    if above and ":" not in text and re.match(r"\s*\w", text) and len(text) - len(text.lstrip()) == case.indent:
        return _no_colon(above, text)
    indent_above = len(text) - len(text.lstrip(" -"))
    if above and _WITH_VALUE.match(text.strip()) and case.indent > indent_above:
        message = f"this line is indented more than line {above}, which has its value already"
        return Explained(case.line, case.indent + 1, message, SAME_COLUMN)
    if one_line := _TWO_KEYS.match(case.written):
        outer, inner = one_line.groups()
        message = f"`{outer}:` and `{inner}:` stand in one line"
        return Explained(case.line, case.column, message, f"`{inner}:` comes in the next line, two spaces further in")
    suggestion = "inside [ ] and { } put a value that holds ${...} in quotes" if "${" in case.written else ""
    return Explained(
        case.line,
        case.column,
        "is not YAML: mapping values are not allowed here",
        suggestion or "put a value that holds ': ' in quotes, and check the indentation",
    )


# --- brackets ---------------------------------------------------------------------------------------------------------


def _brackets(lines: list[str], stop: tuple[int, int] | None = None) -> list[tuple[int, int, str]]:
    """The brackets that are open at a place, or at the end: line, column, character."""
    found: list[tuple[int, int, str]] = []
    for number, line in enumerate(lines, start=1):
        at = 0
        while at < len(line):
            if stop is not None and (number, at + 1) >= stop:
                return found
            char, before = line[at], line[:at].rstrip()
            if char == "#" and (at == 0 or line[at - 1] in " \t"):
                break
            begins = bool(found) or not before or before[-1] in ":-,[{?"
            if char in "\"'" and (not before or before[-1] in ":-,[{?"):
                at = _end_of_quote(line, at) or at
            elif char in "[{" and begins:
                found.append((number, at + 1, char))
            elif char in "]}" and found and found[-1][2] == _OPENING[char]:
                found.pop()
            at += 1
    return found


def _flow(case: _Case) -> Explained | None:
    if not case.context.startswith("while parsing a flow"):
        return None
    for number, text in enumerate(case.lines[: case.line], start=1):
        if text.lstrip().startswith(("//", "/*")):
            column = len(text) - len(text.lstrip()) + 1
            return Explained(number, column, "a comment begins with #", f"write # for {text.lstrip()[:2]}")
    if "${" in case.written and re.search(r"[\[{,]\s*\$\{", case.written):
        said = f"{case.context} {case.problem}"
        suggestion = "inside [ ] and { } put a value that holds ${...} in quotes"
        return Explained(case.line, case.column, f"is not YAML: {said}", suggestion)
    if v6 := _bare_v6(case):
        return v6
    opened = _brackets(case.lines, (case.line, case.column))
    if not opened:
        return None
    token = re.match(r"[^\s,\[\]{}]*", case.written[case.column - 1 :])
    if case.problem.endswith("but found ':'") and token and len(token[0]) > 1:
        message = f"inside of [ ] and {{ }} a value that begins with {token[0][0]} needs quotes"
        return Explained(case.line, case.column, message, f"write '{token[0]}'")
    line, column, char = opened[-1]
    if "<stream end>" in case.problem or not _is_closed_later(case, char):
        return Explained(line, column, f"the {char} that opens here is not closed", "close it, or remove it")
    if odd := _odd_inside(case):
        return odd
    if case.problem.startswith("expected ',' or"):
        before_line, before_column = _end_of_token_before(case)
        return Explained(before_line, before_column, "a comma is missing here", "items are separated by commas")
    return None


def _odd_inside(case: _Case) -> Explained | None:
    """A character in the middle of a value that inside of brackets is none of its text: the ? of a query, a regex."""
    at = case.column - 1
    if case.written[at : at + 1] not in ("?", "[", "{") or not re.search(r"[^\s,\[\]{}\"']$", case.written[:at]):
        return None
    begin = max(found.end() for found in re.finditer(r"^|[,\[{]|: ", case.written[:at]))
    depth, end = 0, at
    while end < len(case.written) and (depth or case.written[end] not in ",]}") and case.written[end:].strip():
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(case.written[end], 0)
        end += 1
    value = case.written[begin:end].strip()
    begin += len(case.written[begin:]) - len(case.written[begin:].lstrip())
    quoted = "'" + value.replace("'", "''") + "'"
    message = f"inside of [ ] and {{ }} a value with {case.written[at]} in it needs quotes"
    return Explained(case.line, begin + 1, message, f"write {quoted}")


def _bare_v6(case: _Case) -> Explained | None:
    """An IPv6 address in brackets, which YAML takes for a list."""
    for found in _IN_BRACKETS.finditer(case.written):
        try:
            ipaddress.IPv6Address(found[2])
        except ValueError:
            continue  # a list
        message = "an address that begins with [ needs quotes"
        meant = found[1] if found[3] else "[ADDRESS]:PORT"  # the port may be what stands last in the brackets
        return Explained(case.line, found.start(1) + 1, message, f"write '{meant}'")
    return None


def _is_closed_later(case: _Case, char: str) -> bool:
    """Whether a bracket of the kind is closed behind the mark more often than it is opened."""
    closing = {"[": "]", "{": "}"}[char]
    rest = case.written[case.column - 1 :] + "\n" + "\n".join(case.lines[case.line :])
    rest = re.sub(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|(?<!\S)#[^\n]*', "", rest)
    return rest.count(closing) > rest.count(char)


def _end_of_token_before(case: _Case) -> tuple[int, int]:
    before = case.written[: case.column - 1].rstrip()
    number = case.line
    while not before and number > 1:
        number -= 1
        before = re.sub(r"(?<!\S)#.*", "", case.lines[number - 1]).rstrip()
    return number, len(before) + 1


# --- indentation ------------------------------------------------------------------------------------------------------


def _block(case: _Case) -> Explained | None:
    if not case.context.startswith("while parsing a block") or case.start is None:
        return None
    if case.column - 1 > case.indent:
        return _rest_of_line(case)
    start_line, start_column = case.start
    if case.context.endswith("collection") and not case.written.lstrip().startswith("-"):
        column = start_column + 2
        message = f"this line is no item of the list that begins in line {start_line}"
        where = "in that column" if case.column == column else f"in column {column}"
        return Explained(
            case.line,
            case.column,
            message,
            f"if it belongs to an item let it begin {where}, like the item's other keys",
        )
    above = case.lines[case.above() - 1]
    above_column = len(above) - len(above.lstrip()) + 1
    if case.written.lstrip().startswith("-") and above.lstrip().startswith("-") and above_column != case.column:
        start_line, start_column = case.above(), above_column
    if case.column == start_column:
        return Explained(case.line, case.column, "this line does not continue what stands above it", SAME_COLUMN)
    message = (
        f"this line begins in column {case.column}, what it continues in column {start_column} (line {start_line})"
    )
    return Explained(case.line, case.column, message, SAME_COLUMN)


def _rest_of_line(case: _Case) -> Explained:
    """Something stands behind a value that is complete."""
    char = case.written[case.column - 1]
    if v6 := _bare_v6(case):
        return v6
    if char in _OPENING:
        return Explained(case.line, case.column, f"this {char} closes nothing", "remove it")
    return Explained(case.line, case.column, "the value before this is complete", "put the whole value in quotes")


def _other_format(case: _Case) -> Explained | None:
    if "<document start>" not in case.problem:
        return None
    first = next((number for number, line in enumerate(case.lines, start=1) if line.strip()), 1)
    if re.fullmatch(r"\s*\[{1,2}[\w. -]+\]{1,2}\s*", case.lines[first - 1]):
        return Explained(first, 1, "this is INI or TOML, not YAML", "sections are keys with a colon: `listeners:`")
    return None


_GUESSES: Final[tuple[Callable[[_Case], Explained | None], ...]] = (
    _bad_escape,
    _open_quote,
    _tab,
    _odd_beginning,
    _missing_colon,
    _second_value,
    _other_format,
    _flow,
    _block,
)
