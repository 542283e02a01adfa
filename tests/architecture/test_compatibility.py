"""docs/compatibility.md stays true: each row names a test that exists, and a version that the changelog knows."""

from __future__ import annotations

import ast
import re

import pytest

from tests.architecture.rules import ROOT

PAGE = ROOT / "docs" / "compatibility.md"
COLUMNS = 5
_NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    """The cells of all tables, without heads and rules."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if row[-1] != "shown by" and set(row[-1]) != {"-"}]


def defined_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_row_is_shown_by_tests_that_exist(row: list[str]) -> None:
    assert len(row) == COLUMNS, row
    named = _NAMED.findall(row[-1])
    assert named and ", ".join(f"`{path}::{name}`" for path, name in named) == row[-1], row[-1]
    assert [f"{path}::{name}" for path, name in named if name not in defined_in(path)] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_row_says_since_which_version(row: list[str]) -> None:
    versions = re.findall(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text())
    assert row[3] in {version.lower() if version == "Unreleased" else version for version in versions}


def test_no_row_stands_twice() -> None:
    keys = [tuple(row[:2]) for row in rows()]
    assert len(keys) > 10 and len(set(keys)) == len(keys)
