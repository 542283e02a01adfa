"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse

import pytest

from benchmarks.command_line import at_least, names


def test_names_with_commas_each_once() -> None:
    assert names(("a", "b", "c"))(" c, a,c") == ("c", "a")
    assert names(("a",), may_be_empty=True)("") == ()


@pytest.mark.parametrize(("text", "complaint"), [("", "at least one"), ("a,x", "'x' is not one of a, b")])
def test_names_that_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=complaint):
        names(("a", "b"))(text)


def test_numbers() -> None:
    assert at_least(2)("2") == 2
    with pytest.raises(argparse.ArgumentTypeError, match="at least 2"):
        at_least(2)("1")
    with pytest.raises(ValueError, match="x"):
        at_least(1)("x")
