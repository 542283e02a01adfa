"""Where the parser gave up is not where the fault is. Whole messages stand in slips.txt; here is what they rest on."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.syntax import Explained, explain


def explained(text: str) -> Explained | None:
    try:
        list(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        return explain(error, text)
    except yaml.YAMLError:
        return None
    return None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 'x\nb: 1\nc: 2\n", 1, "the quote ' that opens here is not closed"),
        # A quoted text over two lines is legal: the fault is elsewhere.
        ("a: 'x\n  y'\nb c\nd: 1\n", 3, "this line has no colon"),
        ("a: [1,\n  2\nb: 3\n", 1, "the [ that opens here is not closed"),
        ("a: {b: 1\nc: 2\nd: 3\n", 1, "the { that opens here is not closed"),
        ("a: # it's fine\n  b c\n  d: 1\n", 2, "this line has no colon"),
        ("a: b\n  c: d\n", 2, "is indented more than line 1"),
        ("a: 'b' c\n", 1, "the value before this is complete"),
    ],
)
def test_the_line_that_is_wrong(text: str, line: int, words: str) -> None:
    found = explained(text)
    assert found is not None
    assert (found.line, words in found.message) == (line, True), found


@given(st.text(alphabet="ab:-[]{}'\"#\t\n ,&*|>%@${}", max_size=80))
def test_any_error_is_explained_at_a_line_of_the_file(text: str) -> None:
    found = explained(text)
    if found is not None:
        assert 1 <= found.line <= text.count("\n") + 1
        assert found.column >= 1
        assert found.message and "\n" not in found.message
