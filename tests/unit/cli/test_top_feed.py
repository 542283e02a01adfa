"""What happens when the connection to the event stream is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lbproxy._client import AdminError
from lbproxy.address import Address
from lbproxy.cli import top_feed
from tests.support.event_scripts import Streams, lost

ADDRESS = Address("127.0.0.1", 8404)


def rates(t: float) -> tuple[str, object]:
    return "rates", {"t": t}


def follow(*, complain: Callable[[str], None], slept: list[float]) -> Iterator[tuple[str, object]]:
    return top_feed.follow(ADDRESS, None, 5.0, complain, slept.append)


def test_a_lost_connection_is_told_once_and_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[str] = []
    slept: list[float] = []
    Streams(monkeypatch, [rates(1.0)], [lost("nothing listens")], [lost("nothing listens")], [rates(2.0)], [])
    messages = follow(complain=complaints.append, slept=slept)
    assert [next(messages), next(messages)] == [rates(1.0), rates(2.0)]
    assert complaints == ["connection to 127.0.0.1:8404 lost, trying again: it has ended the stream"]
    assert slept == [top_feed.RETRY_S] * 3
    with pytest.raises(AssertionError, match="asked once too often"):
        next(messages)
    assert len(complaints) == 2, "it was there in between"


def test_a_connection_that_never_was_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Streams(monkeypatch, [lost("nothing listens")])
    with pytest.raises(AdminError, match="nothing listens"):
        next(follow(complain=pytest.fail, slept=[]))
