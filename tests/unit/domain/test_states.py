"""The words of the three axes are those that people and metrics see."""

from __future__ import annotations

from lbproxy.domain.states import Admin, Breaker, Health


def test_the_words_are_those_that_are_shown() -> None:
    assert [str(value) for value in Admin] == ["ready", "drain", "maint"]
    assert [str(value) for value in Health] == ["unknown", "up", "busy", "down"]
    assert [str(value) for value in Breaker] == ["closed", "ejected", "probing"]
