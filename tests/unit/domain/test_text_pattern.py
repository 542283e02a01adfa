"""Texts with stars: the same as a regular expression says, in time that is linear."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.text_pattern import TextPattern


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("llama-3", "llama-3", True),
        ("llama-3", "llama-3b", False),
        ("llama-*", "llama-", True),
        ("llama-*", "llama-3", True),
        ("llama-*", "my-llama-3", False),
        ("*-instruct", "llama-3-instruct", True),
        ("*-instruct", "instruct", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*", "anything\nat all", True),
        ("**", "x", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c", False),
        ("ü*", "über", True),
        ("true", "true", True),
        ("llama-?", "llama-3", False),
    ],
)
def test_patterns(pattern: str, text: str, fits: bool) -> None:
    assert TextPattern(pattern).matches(text.encode()) is fits
    assert TextPattern(pattern).text == pattern


@given(st.text("ab*", max_size=8), st.text("abc", max_size=12))
def test_is_what_an_expression_says(pattern: str, text: str) -> None:
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert TextPattern(pattern).matches(text.encode()) is (re.fullmatch(expression, text, re.DOTALL) is not None)


def test_many_stars_in_a_long_text_take_no_time() -> None:
    assert not TextPattern("a*" * 200 + "b").matches(b"a" * 65_536)  # an expression would never end
