"""What the command line makes of the admin API's answers. Real connections: tests/scenarios/cli/test_client.py."""

from __future__ import annotations

import pytest

from lbproxy import _client
from lbproxy._client import AdminError, Answer
from lbproxy.address import Address, parse_address

ADMIN = Address("127.0.0.1", 8404)


@pytest.mark.parametrize(
    ("bound", "asked"),
    [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("unix:/a", "unix:/a"),
    ],
)
def test_a_wildcard_is_asked_on_loopback(bound: str, asked: str) -> None:
    assert str(_client.reachable(parse_address(bound))) == asked


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401, b""), "--token"),
        (Answer(403, b""), "--token"),
        (Answer(404, b""), "answered 404"),
        (Answer(200, b"<html>"), "JSON"),
        (Answer(200, b"[]"), "JSON"),
    ],
)
def test_an_answer_that_is_no_object_is_explained(answer: Answer, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "get", lambda *args, **options: answer)
    with pytest.raises(AdminError, match=words):
        _client.get_object(ADMIN, "/api/v1/status")
