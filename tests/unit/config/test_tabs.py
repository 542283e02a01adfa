"""Tabs that separate are spaces; tabs that indent, or that are text, stay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.source import parse
from lbproxy.config.tabs import without_separating_tabs


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a:\tb\n", "a: b\n"),
        ("a: \t b\t# c\n", "a:   b # c\n"),
        ("-\ta\n", "- a\n"),
        ("a: [1,\t2\t]\n", "a: [1, 2 ]\n"),
        ('{\n\t"a"\t:\t1\n}\n', '{\n "a" : 1\n}\n'),
        ("\t\na: 1\n", " \na: 1\n"),
        ("\t# c\na: 1\n", " # c\na: 1\n"),
        # Text and indentation stay.
        ("a: 'b\tc'\n", "a: 'b\tc'\n"),
        ('a: "b\\"\t"\n', 'a: "b\\"\t"\n'),
        ("a: b\tc\n", "a: b\tc\n"),
        ("a: |\n  b:\tc\nd:\te\n", "a: |\n  b:\tc\nd: e\n"),
        ("a:\n\tb: 1\n", "a:\n\tb: 1\n"),
        ("a: it's\tb\n", "a: it's\tb\n"),
    ],
)
def test_which_tabs(text: str, made: str) -> None:
    assert without_separating_tabs(text) == made


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), values, min_size=1, max_size=4))
def test_json_with_tabs_is_the_same_data(data: dict[str, object]) -> None:
    text = json.dumps(data, indent="\t")
    assert text.count("\n") == without_separating_tabs(text).count("\n")
    spaced = json.dumps(data, indent=1)
    assert parse(text.replace("${", "x"), "f", {}).data == parse(spaced.replace("${", "x"), "f", {}).data


@given(st.text(alphabet="\t a:-[]{}'\"#|\n,\\", max_size=60))
def test_only_tabs_change_and_into_spaces(text: str) -> None:
    made = without_separating_tabs(text)
    assert len(made) == len(text)
    changes = {(old, new) for old, new in zip(text, made, strict=True) if old != new}
    assert changes <= {("\t", " ")}
