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


def test_the_status_page() -> None:
    server = {
        "name": "a",
        "address": "127.0.0.1:5001",
        "state": "up",
        "weight": 1,
        "inflight": 3,
        "max_inflight": None,
        "requests": 1234,
        "errors": 0,
        "latency": 0.0123,
        "why": "",
    }
    down = {**server, "name": "bb", "state": "down", "inflight": 0, "max_inflight": 8, "latency": 0.0, "why": "refused"}
    status: dict[str, object] = {
        "version": "0.1.0",
        "uptime": 61.2,
        "reason": None,
        "listeners": [{"name": "main", "mode": "http", "connections": 7}],
        "pools": [{"name": "predict", "strategy": "random", "usable": 1, "servers": [server, down]}],
    }
    assert _client.status_table(status).splitlines() == [
        "lbproxy 0.1.0, up 61 s: ready",
        "listener main (http): client connections 7",
        "",
        "pool predict (random): 1 of 2 usable",
        "SERVER  ADDRESS         STATE  WEIGHT  IN FLIGHT  REQUESTS  ERRORS  LATENCY  WHY",
        "a       127.0.0.1:5001  up          1          3      1234       0  12.3 ms",
        "bb      127.0.0.1:5001  down        1        0/8      1234       0        -  refused",
    ]


def test_the_status_page_survives_what_it_does_not_know() -> None:
    status: dict[str, object] = {"reason": "draining", "pools": [{"servers": "?"}, 7], "listeners": None}
    assert _client.status_table(status).splitlines()[0] == "lbproxy -: draining"
