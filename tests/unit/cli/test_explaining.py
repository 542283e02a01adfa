"""The words of `lbproxy explain`: a request, or the id of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from lbproxy import _client, cli
from lbproxy.cli.common import UsageError
from lbproxy.cli.explaining import parameters
from lbproxy.cli.program import build_parser


def asked(*words: str) -> list[tuple[str, str]]:
    return parameters(build_parser().parse_args(["explain", *words]))


@pytest.mark.parametrize(
    ("words", "method", "path"),
    [
        ((), "GET", "/"),
        (("/a?b=c",), "GET", "/a?b=c"),
        (("POST",), "POST", "/"),
        (("POST", "/a"), "POST", "/a"),
        (("purge", "/a"), "purge", "/a"),
        (("OPTIONS", "*"), "OPTIONS", "*"),
    ],
)
def test_a_request(words: tuple[str, ...], method: str, path: str) -> None:
    assert asked(*words) == [("method", method), ("path", path)]


def test_its_options() -> None:
    given = asked("/", "-H", "a: b", "--header=c:d", "--host", "h", "--from", "::1", "--listener", "l")
    assert given[2:] == [("host", "h"), ("from", "::1"), ("listener", "l"), ("header", "a: b"), ("header", "c:d")]


def test_an_id() -> None:
    assert asked("a2e600953fceeb40a8474812f69022f2") == [("request_id", "a2e600953fceeb40a8474812f69022f2")]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("POST", "/a", "/b"), "write METHOD PATH"),
        (("POST", "a"), "a: a path begins with /"),
        (("id", "--host", "h"), "id is taken for the id of a request, which has no options"),
    ],
)
def test_words_that_are_none(words: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        asked(*words)


@pytest.mark.parametrize(
    ("status", "told", "code", "said"),
    [
        (200, {"request": {"method": "GET", "path": "/"}, "pick": {"server": "s"}, "pool": {"name": "p"}}, 0, "p/s"),
        (404, {"detail": "there is no listener x"}, 1, "lbproxy explain: there is no listener x"),
        (422, {"detail": "from: 'x' is wrong"}, 2, "lbproxy explain: from: 'x' is wrong"),
        (404, {"detail": "There is nothing at this path; see"}, 1, "it is an lbproxy of another version"),
        (404, {}, 1, "it is an lbproxy of another version"),
        (500, {}, 1, "answered 500 to GET /api/v1/explain"),
    ],
)
def test_answers_and_exit_statuses(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    told: Mapping[str, Any],
    code: int,
    said: str,
) -> None:
    paths: list[str] = []

    def call(address: object, method: str, path: str, **_: object) -> _client.Answer:
        paths.append(path)
        return _client.Answer(status, json.dumps(told).encode())

    monkeypatch.setattr(_client, "call", call)
    assert cli.main(["explain", "/a?b=c&d", "-H", "x: é"]) == code
    output = capsys.readouterr()
    assert said in output.out + output.err
    assert bool(output.out) == (code == 0)
    assert paths == ["/api/v1/explain?method=GET&path=%2Fa%3Fb%3Dc%26d&header=x%3A+%C3%A9"]
    if status == 200:
        assert cli.main(["explain", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == told


def test_a_url_is_a_path_and_a_host() -> None:
    assert asked("POST", "http://127.0.0.1:5000/predict?v=2#x") == [
        ("method", "POST"),
        ("path", "/predict?v=2"),
        ("host", "127.0.0.1:5000"),
    ]
    assert asked("https://a.example") == [("method", "GET"), ("path", "/"), ("host", "a.example")]
    assert asked("https://a.example?b", "--host", "c") == [("method", "GET"), ("path", "/?b"), ("host", "c")]


def test_a_word_that_is_no_id_may_be_meant_as_a_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.dumps({"detail": "it is not there"}).encode()
    monkeypatch.setattr(_client, "call", lambda *_args, **_options: _client.Answer(404, told))
    assert cli.main(["explain", "predict"]) == 1
    hint = "; if a path is meant, it begins with /: lbproxy explain /predict"
    assert capsys.readouterr().err == f"lbproxy explain: it is not there{hint}\n"
    assert cli.main(["explain", "0123456789abcdef" * 2]) == 1
    assert capsys.readouterr().err == "lbproxy explain: it is not there\n"
