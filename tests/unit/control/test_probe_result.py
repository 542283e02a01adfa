"""What came of a check, as data."""

from __future__ import annotations

from lbproxy.control.probe_result import Result, Verdict, failed


def test_a_check_that_failed() -> None:
    assert failed("word", "a sentence") == Result(Verdict.FAIL, "word", "a sentence")
