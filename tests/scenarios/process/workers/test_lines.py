"""Lines between real descriptors: messages, descriptors, and how an end is heard."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lbproxy.process.workers.lines import MOST_BYTES, Gone, Line, Said, from_memory, in_memory


@pytest.fixture
def pair() -> Iterator[tuple[Line, Line]]:
    ours, theirs = Line.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_are_whole_and_in_order(pair: tuple[Line, Line]) -> None:
    ours, theirs = pair
    assert theirs.hear() is None
    assert ours.say("stop")
    assert ours.say("notify", b"a b\nc ")
    assert theirs.hear() == Said("stop")
    assert theirs.hear() == Said("notify", b"a b\nc ")
    assert theirs.hear() is None


def test_descriptors_come_with_a_message_and_are_not_inherited(pair: tuple[Line, Line]) -> None:
    ours, theirs = pair
    fd = in_memory(b"x" * 300_000)
    assert ours.say("config", fds=[fd])
    os.close(fd)
    said = theirs.hear()
    assert said is not None
    assert not os.get_inheritable(said.fds[0])
    assert from_memory(said.fds[0]) == b"x" * 300_000


def test_an_end_is_heard_after_what_was_said_before(pair: tuple[Line, Line]) -> None:
    ours, theirs = pair
    theirs.say("never-read")
    ours.say("failed", b"1 why")
    ours.close()  # with something that it has not read
    assert theirs.hear() == Said("failed", b"1 why")
    with pytest.raises(Gone):
        theirs.hear()
    assert not theirs.say("stop")


def test_who_does_not_listen_holds_nobody_up(pair: tuple[Line, Line]) -> None:
    ours, _ = pair
    n_said = 0
    while ours.say("notify", b"x" * 1000):
        n_said += 1
        assert n_said < 100_000
    assert n_said > 0


def test_what_is_too_long_for_a_message_is_a_defect(pair: tuple[Line, Line]) -> None:
    ours, _ = pair
    with pytest.raises(ValueError, match="are more than fits"):
        ours.say("notify", b"x" * (MOST_BYTES + 1))


@pytest.mark.parametrize("length", [10, 5_000_000])
def test_anything_can_be_said_however_long_it_is(pair: tuple[Line, Line], length: int) -> None:
    ours, theirs = pair
    assert ours.say_all("known", {"text": "x" * length})
    said = theirs.hear()
    assert said is not None and said.word == "known"
    assert len(said.fds) == (1 if length > MOST_BYTES else 0)
    assert said.loaded() == {"text": "x" * length}


def test_a_word_is_one_word(pair: tuple[Line, Line]) -> None:
    ours, _ = pair
    with pytest.raises(ValueError, match="'no upgrade' is no word"):
        ours.say("no upgrade")
