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
        (Answer(200, b"\xff\xfe\x00"), "JSON"),
        (Answer(200, b"[" * 1_000_000), "JSON"),
    ],
)
def test_an_answer_that_is_no_object_is_explained(answer: Answer, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "get", lambda *args, **options: answer)
    with pytest.raises(AdminError, match=words):
        _client.get_object(ADMIN, "/api/v1/status")


@pytest.mark.parametrize("token", ["s3cret\n", "s3cr\u00e9t", "\u2192", "two words", "a\r\nX-Evil: 1", "\udcff", "\0"])
def test_a_token_that_no_header_can_carry_is_explained_and_not_shown(token: str) -> None:
    with pytest.raises(AdminError, match="the token") as raised:
        _client.get(ADMIN, "/healthz", token=token)
    assert token.strip() not in str(raised.value)
