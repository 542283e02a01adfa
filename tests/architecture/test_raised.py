"""Rows and columns that nothing raises are promises that nobody keeps: each is used somewhere."""

from __future__ import annotations

import ast
from pathlib import Path

from lbproxy import errors
from lbproxy.errors import Fault
from lbproxy.telemetry import slots
from lbproxy.telemetry.slots import Layout

PACKAGE = Path(errors.__file__).parent
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("errors.py", "fault.py", "slots.py")
}


def used_names() -> set[str]:
    """Names and attributes that code reads, imports left out."""
    nodes = [node for tree in TREES.values() for node in ast.walk(tree)]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {
        node.id for node in nodes if isinstance(node, ast.Name)
    }


def used_texts() -> set[str]:
    return {
        node.value
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_fault_is_raised() -> None:
    used = used_names()
    rows = {name: fault for name, fault in vars(errors).items() if isinstance(fault, Fault)}
    assert len(rows) == len(errors.FAULTS)
    assert [fault.word for name, fault in rows.items() if name not in used] == []


def test_every_counter_is_counted() -> None:
    used = used_texts()
    layouts = [value for value in vars(slots).values() if isinstance(value, Layout)]
    assert len(layouts) >= 5
    assert [family.name for layout in layouts for family in layout.families if family.name not in used] == []


def test_every_label_value_is_counted() -> None:
    """But for those that come from a table of their own: faults, states, codes, methods, statuses of gRPC."""
    used = used_texts()
    reasons = {fault.reason for fault in errors.FAULTS.values()}
    tables = {*reasons, *slots.CODES, *slots.METHODS, *slots.SERVER_STATES, *slots.GRPC_STATUSES}
    missing = [
        (family.name, value)
        for layout in [value for value in vars(slots).values() if isinstance(value, Layout)]
        for family in layout.families
        for _, values in family.labels
        for value in values
        if value not in used and value not in tables
    ]
    assert missing == []
