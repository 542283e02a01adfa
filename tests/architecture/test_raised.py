"""Rows and columns that nothing raises are promises that nobody keeps: each is used somewhere."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from lbproxy import errors
from lbproxy.errors import Fault
from lbproxy.telemetry import slots
from lbproxy.telemetry.slots import Layout
from tests.architecture.rules import parsed, walk

PACKAGE = Path(errors.__file__).parent


@functools.cache
def used() -> tuple[set[str], set[str]]:
    """Names and attributes that code reads, imports left out; and its texts."""
    names: set[str] = set()
    texts: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("errors.py", "fault.py", "slots.py"):
            continue
        for node in walk(parsed(path)):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    return names, texts


def test_every_fault_is_raised() -> None:
    names, _ = used()
    rows = {name: fault for name, fault in vars(errors).items() if isinstance(fault, Fault)}
    assert len(rows) == len(errors.FAULTS)
    assert [fault.word for name, fault in rows.items() if name not in names] == []


def test_every_counter_is_counted() -> None:
    _, texts = used()
    layouts = [value for value in vars(slots).values() if isinstance(value, Layout)]
    assert len(layouts) >= 5
    assert [family.name for layout in layouts for family in layout.families if family.name not in texts] == []


def test_every_label_value_is_counted() -> None:
    """But for those that come from a table of their own: faults, states, codes, methods, statuses of gRPC."""
    _, texts = used()
    reasons = {fault.reason for fault in errors.FAULTS.values()}
    tables = {*reasons, *slots.CODES, *slots.METHODS, *slots.SERVER_STATES, *slots.GRPC_STATUSES}
    missing = [
        (family.name, value)
        for layout in [value for value in vars(slots).values() if isinstance(value, Layout)]
        for family in layout.families
        for _, values in family.labels
        for value in values
        if value not in texts and value not in tables
    ]
    assert missing == []
