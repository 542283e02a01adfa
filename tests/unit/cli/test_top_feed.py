"""What happens when the connection to the event stream is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lbproxy import _client
from lbproxy._client import AdminError
from lbproxy.address import Address
from lbproxy.cli import top_feed

ADDRESS = Address("127.0.0.1", 8404)
Script = list[tuple[str, object]]


class Streams:
    """Stands for the stream: each call gets the next script, in which an "error" is raised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: Script) -> None:
        self.scripts = list(scripts)
        monkeypatch.setattr(_client, "events", self._events)

    def _events(self, address: Address, *, token: str | None, timeout_s: float) -> Iterator[tuple[str, object]]:
        assert self.scripts, "asked once too often"
        for kind, data in self.scripts.pop(0):
            if kind == "error":
                raise AdminError(str(data))
            yield kind, data


def rates(t: float) -> tuple[str, object]:
    return "rates", {"t": t}


def lost(why: str) -> tuple[str, object]:
    return "error", why


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
