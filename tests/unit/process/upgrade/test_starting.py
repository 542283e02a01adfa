from __future__ import annotations

import pytest

from lbproxy.process.upgrade.starting import Failed, Patience, how_it_ended, problems_of, start


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (None, "the new process broke off, and goes on without a word"),
        (3, "the new process ended with status 3 before it was ready; the log has its own words"),
        (-9, "the new process was killed by SIGKILL before it was ready; the log has its own words"),
        (-99, "the new process was killed by signal 99 before it was ready; the log has its own words"),
    ],
)
def test_how_a_process_ended(status: int | None, text: str) -> None:
    assert how_it_ended(status) == text


def test_what_a_process_says_that_cannot_serve() -> None:
    assert problems_of({"problems": ["a", "b"]}).problems == ("a", "b")
    assert problems_of({}).problems == ("it did not say why",)
    assert str(Failed("a", "b")) == "a; b"


@pytest.mark.parametrize(
    ("grace", "word_s", "end_s"), [(25.0, 5.0, 1.0), (3600.0, 5.0, 1.0), (2.0, 1.0, 0.5), (0.0, 0.0, 0.0)]
)
def test_a_stop_has_patience_within_the_grace(grace: float, word_s: float, end_s: float) -> None:
    assert Patience.of_a_stop(grace) == Patience(word_s, end_s)


def test_what_cannot_be_started_is_told() -> None:
    with pytest.raises(Failed, match="cannot start /no/such/lbproxy: No such file or directory"):
        start(lambda: ["/no/such/lbproxy"], {}, 0)

    def no_words() -> list[str]:
        raise ValueError("no words")

    with pytest.raises(Failed, match="no words"):
        start(no_words, {}, 0)
