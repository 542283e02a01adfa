"""YAML text -> plain data, and a map from the path of every key and value to its line and column.

Scalars follow the core schema of YAML 1.2 (section 10.3.2): only `true` and `false` are booleans, so that the key `on`
stays a text, `5:50` is no sexagesimal number and `010` is ten. PyYAML scans and parses; composing is done here, without
recursion over the input, because a config may come from a template that went wrong: at most 1 MiB, 10,000 nodes after
aliases are expanded, 64 levels.

`${VAR}`, `${VAR:-default}` and `$${` are replaced inside values, after parsing: a variable never injects structure.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Final

import yaml

from lbproxy.config import variables
from lbproxy.config.problems import ConfigError, Path, Problem, path_text
from lbproxy.config.syntax import explain
from lbproxy.config.tabs import without_separating_tabs
from lbproxy.config.units import TypedFloat, TypedInt

MAX_BYTES: Final = 1 << 20
MAX_NODES: Final = 10_000
MAX_DEPTH: Final = 64
EMPTY: Final = "the file is empty"

_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DOT_BEFORE_WORD: Final = re.compile(r"\.(?=[iInN])")
_NULLS: Final = ("", "~", "null", "Null", "NULL")
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TYPESET: Final = "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab"
_TAG: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, from 1."""

    line: int
    column: int


@dataclass(slots=True)
class _Node:
    """A scalar, list or mapping before it becomes data. size and depth count aliases as if written out."""

    kind: str
    place: Place
    tag: str = ""
    text: str = ""
    plain: bool = False
    end_line: int = 0
    is_flow: bool = False
    items: list[_Node] = field(default_factory=list)
    keys: list[_Node] = field(default_factory=list)
    size: int = 1
    depth: int = 1


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

    def place(self, path: Path, *, at_key: bool = False) -> Place:
        """Where to point for a path. A path that is not in the file is looked for in what encloses it."""
        asked = path
        while path:
            if (at_key or path != asked) and path in self.keys:
                return self.keys[path]
            if path in self.values:
                return self.values[path]
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
        self._add(path, message, suggestion, at_key=at_key, is_warning=True)

    def _add(
        self, path: Path, message: str, suggestion: str, *, at_key: bool = False, is_warning: bool = False
    ) -> None:
        place = self.place(path, at_key=at_key)
        problem = Problem(self.file, place.line, place.column, path_text(path), message, suggestion, is_warning)
        if problem not in self.problems:
            self.problems.append(problem)


class _Refused(Exception):
    """The text cannot be read further."""

    def __init__(self, place: Place, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.place = place
        self.message = message
        self.suggestion = suggestion


STANDARD_INPUT: Final = "-"


def shown_name(path: str | FilePath) -> str:
    """The name of a config file in messages."""
    return "<stdin>" if str(path) == STANDARD_INPUT else str(path)


def read_text(path: str | FilePath) -> str:
    """The text of a config file, `-` is standard input. Raises ConfigError with one problem if it cannot be read."""
    name = shown_name(path)
    try:
        # Standard input stays open: its descriptor's number must not pass to a socket.
        with nullcontext(sys.stdin.buffer) if str(path) == STANDARD_INPUT else FilePath(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError((Problem(name, 0, 0, "", "there is no such file"),)) from None
    except IsADirectoryError:
        raise ConfigError((Problem(name, 0, 0, "", "is a directory, not a file"),)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError((Problem(name, 0, 0, "", f"cannot be read: {reason}"),)) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError((Problem(name, 0, 0, "", "is larger than 1 MiB"),))
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
            raise _Refused(Place(1, 1), "the file is larger than 1 MiB")
        root = _compose(without_separating_tabs(text))
        _Builder(document, environ).build(root)
    except _Refused as refused:
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


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)


def _compose(text: str) -> _Node:
    """The node tree of the one document in the text. Containers under construction are on an explicit stack."""
    anchors: dict[str, _Node] = {}
    stack: list[tuple[_Node, str | None]] = []
    root: _Node | None = None
    second: Place | None = None
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = _place(event)
        if isinstance(event, yaml.DocumentStartEvent):
            second = place if root is not None else None
            continue
        if second is not None and not isinstance(event, (yaml.DocumentEndEvent, yaml.StreamEndEvent)):
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and not event.value:
                continue  # nothing but a marker, which some tools leave at the end
            raise _Refused(second, "a second document begins here", "a config file holds one document")
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            kind = "list" if isinstance(event, yaml.SequenceStartEvent) else "mapping"
            stack.append((_Node(kind, place, event.tag or "", is_flow=bool(event.flow_style)), event.anchor))
            if len(stack) > MAX_DEPTH:
                raise _Refused(place, f"is nested more than {MAX_DEPTH} levels deep")
            continue
        if isinstance(event, yaml.ScalarEvent):
            end_line = event.end_mark.line + 1 if event.end_mark else place.line
            node = _Node("scalar", place, event.tag or "", event.value, plain=event.implicit[0], end_line=end_line)
            anchor = event.anchor
        elif isinstance(event, yaml.AliasEvent):
            node, anchor = _aliased(anchors, event.anchor or "", place), None
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            node, anchor = stack.pop()
        else:
            continue
        if anchor is not None:
            anchors[anchor] = node
        if stack:
            _attach(stack[-1][0], node, place)
        else:
            root = node
    if root is None or (root.kind == "scalar" and root.plain and root.text in _NULLS):
        raise _Refused(Place(1, 1), EMPTY, "it needs at least `listeners` and `pools`")
    return root


def _aliased(anchors: Mapping[str, _Node], name: str, place: Place) -> _Node:
    if name not in anchors:
        message = f"the alias *{name} refers to no anchor &{name} before it"
        raise _Refused(place, message, "put a value that begins with * in quotes")
    return anchors[name]


def _attach(parent: _Node, node: _Node, place: Place) -> None:
    if parent.kind == "mapping" and len(parent.keys) == len(parent.items):
        parent.keys.append(node)
    else:
        parent.items.append(node)
    parent.size += node.size
    parent.depth = max(parent.depth, node.depth + 1)
    if parent.size > MAX_NODES:
        raise _Refused(place, f"the file has more than {MAX_NODES} nodes, aliases expanded")
    if parent.depth > MAX_DEPTH:
        raise _Refused(place, f"is nested more than {MAX_DEPTH} levels deep, aliases expanded")


class _Builder:
    """Turns nodes into data. Recursion is bounded by MAX_DEPTH, work by MAX_NODES."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.document = document
        self.environ = environ

    def build(self, root: _Node) -> None:
        self.document.data = self._value(root, ())

    def _value(self, node: _Node, path: Path) -> object:
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

    def _mapping(self, node: _Node, path: Path) -> dict[str, object]:
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

    def _scalar(self, node: _Node, path: Path, tag: str) -> object:
        if node.plain and not tag:
            self._suspect(node, path)
        text = self._replaced(node.text, path) if "${" in node.text else node.text
        if tag == "str" or (not node.plain and not tag) or tag == "!":
            return text
        value = typed(text)
        if value is None:
            self.document.complain(path, *_why_empty(node.text))
        return value

    def _suspect(self, node: _Node, path: Path) -> None:
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


def _template(key: _Node) -> str:
    return "{{ }} is what a template tool should have filled in" if key.is_flow and key.kind == "mapping" else ""


def _why_empty(written: str) -> tuple[str, str]:
    if "${" in written:
        return f"is empty after {written} is replaced", "set the variable, or give a default such as ${NAME:-off}"
    return "has no value", "write one, or remove the key"


def typed(text: str) -> object:
    """An unquoted scalar by the core schema: None, bool, int, float or the text itself."""
    if text in _NULLS:
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
