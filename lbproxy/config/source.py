"""YAML text -> plain data, and a map from the path of every key and value to its line and column.

Scalars follow the core schema of YAML 1.2 (section 10.3.2): only `true` and `false` are booleans, so that the key `on`
stays a text, `5:50` is no sexagesimal number and `010` is ten. A file has at most 1 MiB; nodes.py has the other bounds.

`${VAR}`, `${VAR:-default}` and `$${` are replaced inside values, after parsing: a variable never injects structure.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Final

import yaml

from lbproxy.config import variables
from lbproxy.config.nodes import NULLS, Node, Place, Refused, compose
from lbproxy.config.problems import ConfigError, Path, Problem, path_text
from lbproxy.config.syntax import explain
from lbproxy.config.tabs import without_separating_tabs
from lbproxy.config.units import TypedFloat, TypedInt

MAX_BYTES: Final = 1 << 20
# A first character that is ASCII, in two or four bytes without a mark.
_WIDE: Final = re.compile(rb"[\t\n\r -~]\0|\0(?:\0\0)?[\t\n\r -~]")

_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DOT_BEFORE_WORD: Final = re.compile(r"\.(?=[iInN])")
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TYPESET: Final = "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab"
_TAG: Final = "tag:yaml.org,2002:"


Told = tuple[Path, str, str, bool]
"""A warning as `Document.warn` gets it: path, message, suggestion, at_key."""


@dataclass(slots=True)
class Document:
    """What stands in a file. `keys` and `values` give the place of each path's key and value."""

    file: str
    data: object = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    blamed: set[Path] = field(default_factory=set)
    flow: set[Path] = field(default_factory=set)  # lists and mappings in brackets
    # Of a file that was read in pieces: how many lines come before the piece with a path; what `once` warned of.
    lines: dict[Path, int] = field(default_factory=dict)
    told: dict[Path, dict[str, list[Told]]] = field(default_factory=dict)
    _noted: list[Told] | None = None

    def place(self, path: Path, *, at_key: bool = False) -> Place:
        """Where to point for a path. A path that is not in the file is looked for in what encloses it."""
        asked = path
        while path:
            found = self.keys.get(path) if at_key or path != asked else None
            found = found or self.values.get(path)
            if found is not None:
                before = self.lines.get(path[:2], self.lines.get(path[:1], 0))
                return Place(found.line + before, found.column) if before else found
            path = path[:-1]
        return self.values.get((), Place(1, 1))

    def at(self, path: Path) -> object:
        """The value at a path, None where there is nothing."""
        value = self.data
        for part in path:
            if isinstance(value, dict):
                value = value.get(str(part))
            else:
                value = value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None
        return value

    def complain(self, path: Path, message: str, suggestion: str = "", *, at_key: bool = False) -> None:
        """Add a problem, unless the path lies in something that was complained about before."""
        if any(path[:length] in self.blamed for length in range(len(path) + 1)):
            return
        self.blamed.add(path)
        self._add(path, message, suggestion, at_key=at_key)

    def object_to(self, path: Path, message: str, suggestion: str = "", *, at_key: bool = False) -> None:
        """Add a problem that follows from other keys, unless something in, at or around the path is wrong already."""
        related = (p for p in self.blamed if p[: len(path)] == path or path[: len(p)] == p)
        if next(related, None) is None:
            self._add(path, message, suggestion, at_key=at_key)

    def require_one_of(self, path: Path, names: tuple[str, ...], message: str) -> None:
        """Object that none of the keys is there, at the first of them, unless one was misspelt."""
        if not any((*path, name) in self.blamed for name in names):
            self.object_to((*path, names[0]), message)

    def warn(self, path: Path, message: str, suggestion: str = "", *, at_key: bool = False) -> None:
        """Add a warning: legal, but hardly what was meant."""
        if self._noted is not None:
            self._noted.append((path, message, suggestion, at_key))
        self._add(path, message, suggestion, at_key=at_key, is_warning=True)

    def once(self, kind: str, path: Path, check: Callable[[], None]) -> None:
        """Run a check that looks at nothing but what stands at a path; not again for a piece that is as it was.

        What it said then is said again, where the piece is now. kind: which check.
        """
        told = self.told.get(path)
        if told is None:
            check()
        elif kind in told:
            for where, message, suggestion, at_key in told[kind]:
                self._add(where, message, suggestion, at_key=at_key, is_warning=True)
        else:
            self._noted = told[kind] = []
            check()
            self._noted = None

    def _add(
        self, path: Path, message: str, suggestion: str, *, at_key: bool = False, is_warning: bool = False
    ) -> None:
        place = self.place(path, at_key=at_key)
        problem = Problem(self.file, place.line, place.column, path_text(path), message, suggestion, is_warning)
        if problem not in self.problems:
            self.problems.append(problem)


STANDARD_INPUT: Final = "-"


def shown_name(path: str | FilePath) -> str:
    """The name of a config file in messages."""
    return "<stdin>" if str(path) == STANDARD_INPUT else str(path)


def read_text(path: str | FilePath) -> str:
    """The text of a config file, `-` is standard input. Raises ConfigError with one problem if it cannot be read."""
    return decoded(read_bytes(path), shown_name(path))


def read_bytes(path: str | FilePath) -> bytes:
    """What stands in it, and one octet more than there may be at most. Raises ConfigError."""
    name = shown_name(path)
    try:
        # Standard input stays open: its descriptor's number must not pass to a socket.
        with nullcontext(sys.stdin.buffer) if str(path) == STANDARD_INPUT else FilePath(path).open("rb") as file:
            raw: bytes = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError((Problem(name, 0, 0, "", "there is no such file"),)) from None
    except IsADirectoryError:
        raise ConfigError((Problem(name, 0, 0, "", "is a directory, not a file"),)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError((Problem(name, 0, 0, "", f"cannot be read: {reason}"),)) from None
    return raw


def decoded(raw: bytes, name: str) -> str:
    """It as text. Raises ConfigError."""
    if len(raw) > MAX_BYTES:
        raise ConfigError((Problem(name, 0, 0, "", "is larger than 1 MiB"),))
    is_utf32 = raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE))
    if is_utf32 or _WIDE.match(raw):
        told = "is in UTF-32" if is_utf32 else "is not UTF-8; it looks like UTF-16 or UTF-32"
        raise ConfigError((Problem(name, 1, 1, "", told, "save the file as UTF-8"),))
    try:
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return raw.decode("utf-16")  # as YAML allows, and PowerShell writes
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        message = f"byte 0x{raw[error.start]:02x} is not {error.encoding.upper()}"
        raise ConfigError((Problem(name, line, column, "", message, "save the file as UTF-8"),)) from None


def parse(text: str, file: str, environ: Mapping[str, str]) -> Document:
    """Read the text. Raises ConfigError where it is not YAML; lesser problems are collected in the document."""
    document = Document(file)
    try:
        if len(text) > MAX_BYTES:
            raise Refused(Place(1, 1), "the file is larger than 1 MiB")
        root = compose(without_separating_tabs(text))
        _Builder(document, environ).build(root)
    except Refused as refused:
        place = refused.place
        problem = Problem(file, place.line, place.column, "", refused.message, refused.suggestion)
        raise ConfigError((*document.problems, problem)) from None
    except yaml.MarkedYAMLError as error:
        told = explain(error, text)
        raise ConfigError((Problem(file, told.line, told.column, "", told.message, told.suggestion),)) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        code = error.character if isinstance(error.character, int) else ord(error.character)
        message = f"the character U+{code:04X} is not allowed in YAML"
        raise ConfigError((Problem(file, line, column, "", message),)) from None
    return document


class _Builder:
    """Turns nodes into data. Recursion is bounded by MAX_DEPTH, work by MAX_NODES."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.document = document
        self.environ = environ

    def build(self, root: Node) -> None:
        self.document.data = self._value(root, ())

    def _value(self, node: Node, path: Path) -> object:
        self.document.values[path] = node.place
        expected = {"scalar": ("str", "int", "float", "bool", "null"), "list": ("seq",), "mapping": ("map",)}[node.kind]
        tag = node.tag.removeprefix(_TAG)
        if node.tag and tag not in (*expected, "!"):
            shown = node.tag.replace(_TAG, "!!")
            self.document.complain(path, f"the tag {shown} is not known here", "remove it")
        if node.is_flow:
            self.document.flow.add(path)
        if node.kind == "mapping":
            return self._mapping(node, path)
        if node.kind == "list":
            return [self._value(item, (*path, index)) for index, item in enumerate(node.items)]
        return self._scalar(node, path, tag)

    def _mapping(self, node: Node, path: Path) -> dict[str, object]:
        made: dict[str, object] = {}
        for key_node, item in zip(node.keys, node.items, strict=True):
            if key_node.kind != "scalar":
                self.document.values[(*path, "?")] = key_node.place
                self.document.complain((*path, "?"), f"a key is a text, not a {key_node.kind}", _template(key_node))
                continue
            key = key_node.text
            if key[:1].isspace():
                self.document.values[(*path, key)] = key_node.place
                message = f"the line begins with U+{ord(key[0]):04X}, which only looks like a space"
                self.document.complain((*path, key), message, "indent with ordinary spaces")
                continue
            inner = (*path, key)
            if key in made:
                first = self.document.keys[inner]
                self.document.problems.append(
                    Problem(
                        self.document.file,
                        key_node.place.line,
                        key_node.place.column,
                        path_text(inner),
                        f"is given twice, first in line {first.line}",
                        "remove one of them",
                    )
                )
                continue
            self.document.keys[inner] = key_node.place
            made[key] = self._value(item, inner)
        return made

    def _scalar(self, node: Node, path: Path, tag: str) -> object:
        if node.plain and not tag:
            self._suspect(node, path)
        text = self._replaced(node.text, path) if "${" in node.text else node.text
        if tag == "str" or (not node.plain and not tag) or tag == "!":
            return text
        value = typed(text)
        if value is None:
            self.document.complain(path, *_why_empty(node.text))
        return value

    def _suspect(self, node: Node, path: Path) -> None:
        """Plain text that is legal YAML and never meant: a list that slid into the value above it, typeset quotes."""
        if node.end_line > node.place.line and (node.text.startswith("-") or " -" in node.text):
            if node.text.startswith("-"):
                self.document.complain(path, "these lines are one text, not a list", "put a space behind each `-`")
            else:
                message = f"the lines to line {node.end_line} are read as part of this text"
                self.document.complain(path, message, "a list stands below its own key, indented")
        elif node.text[:1] in _TYPESET and node.text[:1]:
            message = f"{node.text[0]} is not a quote in YAML"
            self.document.complain(path, message, "use ' or \"")

    def _replaced(self, text: str, path: Path) -> str:
        def complain(message: str, suggestion: str) -> None:
            self.document.complain(path, message, suggestion)

        return variables.replaced(text, self.environ, complain)


def _template(key: Node) -> str:
    return "{{ }} is what a template tool should have filled in" if key.is_flow and key.kind == "mapping" else ""


def _why_empty(written: str) -> tuple[str, str]:
    if "${" in written:
        return f"is empty after {written} is replaced", "set the variable, or give a default such as ${NAME:-off}"
    return "has no value", "write one, or remove the key"


def typed(text: str) -> object:
    """An unquoted scalar by the core schema: None, bool, int, float or the text itself."""
    if text in NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) <= 64:
        if _INT.fullmatch(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return TypedInt(int(text, base), text)
        if _FLOAT.fullmatch(text):
            return TypedFloat(float(_DOT_BEFORE_WORD.sub("", text)), text)
    return text
