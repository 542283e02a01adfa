"""YAML text -> the tree of its nodes, without recursion over the input: a config may come from a template that went
wrong, so there are at most 10,000 nodes after aliases are expanded, and 64 levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml

from lbproxy.config import common_yaml

MAX_NODES: Final = 10_000
MAX_DEPTH: Final = 64
EMPTY: Final = "the file is empty"
NULLS: Final = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Node:
    """A scalar, list or mapping before it becomes data. size and depth count aliases as if written out."""

    kind: str
    place: Place
    tag: str = ""
    text: str = ""
    plain: bool = False
    end_line: int = 0
    is_flow: bool = False
    items: list[Node] = field(default_factory=list)
    keys: list[Node] = field(default_factory=list)
    size: int = 1
    depth: int = 1


class Refused(Exception):
    """The text cannot be read further."""

    def __init__(self, place: Place, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.place = place
        self.message = message
        self.suggestion = suggestion


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)


def compose(text: str) -> Node:
    """The node tree of the one document in the text. Raises Refused or yaml.YAMLError."""
    if common_yaml.HAS_LIBYAML and common_yaml.is_common(text):
        try:
            return _composed(common_yaml.events(text))
        except (Refused, yaml.YAMLError):
            pass  # PyYAML's own parser says what is wrong
    return _composed(yaml.parse(text, Loader=yaml.SafeLoader))


def _composed(events: Iterable[yaml.Event]) -> Node:
    """The node tree of the one document that is read. Containers under construction are on an explicit stack."""
    anchors: dict[str, Node] = {}
    stack: list[tuple[Node, str | None]] = []
    root: Node | None = None
    second: Place | None = None
    for event in events:
        place = _place(event)
        if isinstance(event, yaml.DocumentStartEvent):
            second = place if root is not None else None
            continue
        if second is not None and not isinstance(event, (yaml.DocumentEndEvent, yaml.StreamEndEvent)):
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and not event.value:
                continue  # nothing but a marker, which some tools leave at the end
            raise Refused(second, "a second document begins here", "a config file holds one document")
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            kind = "list" if isinstance(event, yaml.SequenceStartEvent) else "mapping"
            stack.append((Node(kind, place, event.tag or "", is_flow=bool(event.flow_style)), event.anchor))
            if len(stack) > MAX_DEPTH:
                raise Refused(place, f"is nested more than {MAX_DEPTH} levels deep")
            continue
        if isinstance(event, yaml.ScalarEvent):
            end_line = event.end_mark.line + 1 if event.end_mark else place.line
            node = Node("scalar", place, event.tag or "", event.value, plain=event.implicit[0], end_line=end_line)
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
    if root is None or (root.kind == "scalar" and root.plain and root.text in NULLS):
        raise Refused(Place(1, 1), EMPTY, "it needs at least `listeners` and `pools`")
    return root


def _aliased(anchors: Mapping[str, Node], name: str, place: Place) -> Node:
    if name not in anchors:
        message = f"the alias *{name} refers to no anchor &{name} before it"
        raise Refused(place, message, "put a value that begins with * in quotes")
    return anchors[name]


def _attach(parent: Node, node: Node, place: Place) -> None:
    if parent.kind == "mapping" and len(parent.keys) == len(parent.items):
        parent.keys.append(node)
    else:
        parent.items.append(node)
    parent.size += node.size
    parent.depth = max(parent.depth, node.depth + 1)
    if parent.size > MAX_NODES:
        raise Refused(place, f"the file has more than {MAX_NODES} nodes, aliases expanded")
    if parent.depth > MAX_DEPTH:
        raise Refused(place, f"is nested more than {MAX_DEPTH} levels deep, aliases expanded")
