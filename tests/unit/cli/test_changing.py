"""Which servers the commands mean, what they ask of the API, and what they say."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lbproxy import _client, cli
from lbproxy._client import AdminError, Answer
from lbproxy.address import Address
from lbproxy.cli.changing import Target, targets
from lbproxy.cli.common import UsageError

Capture = pytest.CaptureFixture[str]


def server(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "address": name, "admin": "ready", "inflight": 0, "state": "up", **more}


STATUS: dict[str, object] = {
    "pools": [
        {
            "name": "predict",
            "servers": [
                server("10.0.0.1:80"),
                server("10.0.0.2:80"),
                server("[::1]:80"),
                server("unix:/run/a.sock"),
                server("gone:80", state="unresolved"),
            ],
        },
        {"name": "other", "servers": [server("10.0.0.1:80"), server("b", address="10.0.0.9:80")]},
    ]
}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["predict/10.0.0.1:80"], ["predict/10.0.0.1:80"]),
        (["predict/10.0.0.*"], ["predict/10.0.0.1:80", "predict/10.0.0.2:80"]),
        (["predict/10.0.0.?:80"], ["predict/10.0.0.1:80", "predict/10.0.0.2:80"]),
        (["predict/[::1]:*"], ["predict/[::1]:80"]),
        (["predict/unix:/run/a.sock"], ["predict/unix:/run/a.sock"]),
        (["predict/unix:*"], ["predict/unix:/run/a.sock"]),
        (["other/b"], ["other/b"]),
        (["other/10.0.0.9:80"], ["other/b"]),
        (["*/10.0.0.1:80"], ["predict/10.0.0.1:80", "other/10.0.0.1:80"]),
        (["other/*", "other/b"], ["other/10.0.0.1:80", "other/b"]),
    ],
)
def test_servers_that_a_pattern_means(patterns: list[str], expected: list[str]) -> None:
    assert [str(target) for target in targets(STATUS, patterns)] == expected


def test_all_but_is_the_rest_of_the_same_pools() -> None:
    found = targets(STATUS, ["predict/10.0.0.1:80", "predict/u*"], is_all_but=True)
    assert [str(target) for target in found] == ["predict/10.0.0.2:80", "predict/[::1]:80"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("predict/10.0.0.3:80", "there is no server predict/10.0.0.3:80; did you mean predict/10.0.0.2:80"),
        ("predict/gone:80", "there is no server predict/gone:80"),
        ("x/y*", "there is no server x/y*; there is predict/10.0.0.1:80"),
    ],
)
@pytest.mark.parametrize("is_all_but", [False, True])
def test_a_pattern_that_means_nothing_is_no_call_for_all_others(pattern: str, said: str, is_all_but: bool) -> None:
    with pytest.raises(AdminError) as refused:
        targets(STATUS, ["predict/10.0.0.1:80", pattern], is_all_but=is_all_but)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("word", ["predict", "predict/", "10.0.0.1:80"])
def test_a_word_without_a_server_is_bad_usage(word: str) -> None:
    with pytest.raises(UsageError, match="write POOL/SERVER"):
        targets(STATUS, [word])


def test_names_are_encoded_in_the_path() -> None:
    assert Target("p", "unix:/a b%.sock").path == "/api/v1/pools/p/servers/unix%3A%2Fa%20b%25.sock"


class Api:
    """Stands for the admin API; remembers the calls that change something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str, object]] = []
        self.answers: dict[str, Callable[[str], Answer]] = {"PATCH": lambda path: self.changed(2)}
        monkeypatch.setattr(_client, "call", self._call)
        monkeypatch.setenv("LBPROXY_ADMIN", "127.0.0.1:1")

    def changed(self, inflight: int) -> Answer:
        changed = {"admin": {"old": "ready", "new": "drain"}, "max_inflight": {"old": None, "new": 4}}
        return self.answer(200, server=server("x", inflight=inflight, admin="drain", weight=3), changed=changed)

    def answer(self, status: int, **told: object) -> Answer:
        return Answer(status, json.dumps(told).encode())

    def _call(
        self, address: Address, method: str, path: str, *, token: str | None, timeout_s: float, body: object = None
    ) -> Answer:
        if path == "/api/v1/status":
            return self.answer(200, **STATUS)
        if method != "GET":
            self.calls.append((method, path.removeprefix("/api/v1/pools/"), body))
        return self.answers[method](path)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def test_each_server_is_a_call_and_a_sentence(api: Api, capsys: Capture) -> None:
    assert cli.main(["drain", "predict/10.*"]) == 0
    assert api.calls == [
        ("PATCH", "predict/servers/10.0.0.1%3A80", {"admin": "drain"}),
        ("PATCH", "predict/servers/10.0.0.2%3A80", {"admin": "drain"}),
    ]
    assert capsys.readouterr().out == (
        "predict/10.0.0.1:80: ready -> drain, 2 in flight\npredict/10.0.0.2:80: ready -> drain, 2 in flight\n"
    )


@pytest.mark.parametrize(
    ("words", "body", "said"),
    [
        (["ready", "other/b"], {"admin": "ready"}, "other/b: ready -> drain, 2 in flight\n"),
        (["maint", "other/b"], {"admin": "maint"}, "other/b: ready -> drain, 2 in flight\n"),
        (["weight", "other/b", "5"], {"weight": 5}, "other/b: weight 3 already\n"),
        (["weight", "other/b", "file"], {"weight": "file"}, "other/b: weight 3 already\n"),
        (["weight", "other/b", "--file"], {"weight": "file"}, "other/b: weight 3 already\n"),
        (["limit", "--file", "other/b"], {"max_inflight": "file"}, "other/b: max_inflight off -> 4\n"),
        (["ready", "other/b", "--file"], {"admin": "file"}, "other/b: ready -> drain, 2 in flight\n"),
        (["limit", "other/b", "4"], {"max_inflight": 4}, "other/b: max_inflight off -> 4\n"),
        (["limit", "other/b", "off"], {"max_inflight": "off"}, "other/b: max_inflight off -> 4\n"),
    ],
)
def test_what_is_asked_of_the_api(
    api: Api, capsys: Capture, words: list[str], body: dict[str, object], said: str
) -> None:
    assert cli.main(words) == 0
    assert api.calls == [("PATCH", "other/servers/b", body)]
    assert capsys.readouterr().out == said


def test_what_the_api_refuses_is_told(api: Api, capsys: Capture) -> None:
    api.answers["PATCH"] = lambda path: api.answer(422, detail="weight: expected a whole number")
    assert cli.main(["weight", "other/b", "5"]) == 2
    assert cli.main(["weight", "other/b"]) == 2
    api.answers["PATCH"] = lambda path: api.answer(409, detail="b leaves the pool")
    assert cli.main(["ready", "other/b"]) == 1
    api.answers["PATCH"] = lambda path: api.answer(403, detail="The token ci may only read (scope: read).")
    assert cli.main(["ready", "other/b"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == [
        "lbproxy weight: weight: expected a whole number",
        "lbproxy weight: other/b: write POOL/SERVER and the value behind it, or --file",
        "lbproxy ready: b leaves the pool",
    ]
    assert "The token ci may only read (scope: read)." in told[3] and "--token" in told[3]


def test_json_is_what_the_api_said(api: Api, capsys: Capture) -> None:
    api.answers["GET"] = idle
    assert cli.main(["drain", "--json", "other/*", "--wait"]) == 0
    assert [answer["changed"]["admin"]["new"] for answer in json.loads(capsys.readouterr().out)] == ["drain", "drain"]


def idle(path: str) -> Answer:
    return Answer(200, json.dumps({"server": server("x", admin="drain")}).encode())


def test_waiting_ends_when_nothing_is_in_flight(api: Api, capsys: Capture) -> None:
    api.answers["GET"] = idle
    assert cli.main(["drain", "other/b", "--wait"]) == 0
    assert capsys.readouterr().out == "other/b: ready -> drain, 2 in flight\nother/b: idle\n"
    api.answers["GET"] = lambda path: api.answer(404, detail="there is no server")
    assert cli.main(["drain", "other/b", "--wait"]) == 0
    assert capsys.readouterr().out.endswith("other/b: gone\n")


def test_waiting_ends_when_somebody_takes_it_back(api: Api, capsys: Capture) -> None:
    api.answers["GET"] = lambda path: api.answer(200, server=server("b", inflight=1))
    assert cli.main(["drain", "other/b", "--wait"]) == 1
    assert "other/b is ready again" in capsys.readouterr().err


def test_who_is_busy_when_the_time_is_over_is_told(api: Api, capsys: Capture) -> None:
    api.answers["GET"] = lambda path: api.answer(200, server=server("b", inflight=3, admin="drain"))
    assert cli.main(["drain", "other/b", "--wait", "--timeout", "0.000001"]) == 1
    assert capsys.readouterr().err == "other/b is still busy after 1e-06 s: 3 in flight\n"


def test_add_says_when_a_server_is_used(api: Api, capsys: Capture) -> None:
    api.answers["POST"] = lambda path: api.answer(201, servers=[server("n", state="down"), server("m")])
    words = ["--name", "n", "--weight", "3", "--limit", "2", "--backup"]
    assert cli.main(["add", "other/unix:/run/b.sock", *words]) == 0
    wanted = {"address": "unix:/run/b.sock", "name": "n", "weight": 3, "max_inflight": 2, "backup": True}
    assert api.calls == [("POST", "other/servers", wanted)]
    assert capsys.readouterr().out == (
        "other/n: added; takes traffic after its first passing check\nother/m: added; takes traffic\n"
    )
    assert cli.main(["add", "other/a:1", "other/b:1", "--name", "n"]) == 2
    assert cli.main(["add", "other"]) == 2


def test_remove_says_whether_a_server_is_gone(api: Api, capsys: Capture) -> None:
    api.answers["DELETE"] = lambda path: api.answer(200, removed=True)
    assert cli.main(["remove", "other/b", "--wait"]) == 0
    assert capsys.readouterr().out == "other/b: removed\n"
    api.answers["DELETE"] = lambda path: api.answer(202, removed=False, server=server("b", inflight=3))
    assert cli.main(["remove", "other/b"]) == 0
    assert capsys.readouterr().out == "other/b: goes when it is idle, 3 in flight\n"


def test_all_but_the_only_servers_is_nobody(api: Api, capsys: Capture) -> None:
    assert cli.main(["drain", "--all-but", "other/*"]) == 0
    assert api.calls == [] and capsys.readouterr().out == "no server but those\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["weight", "p/a", "x"], "weight: "),
        (["weight", "p/a", "-1"], ""),
        (["weight", "p/a", "65536"], "weight: "),
        (["weight", "p", "5"], "p: write POOL/SERVER"),
        (["limit", "p/a", "0"], "max_inflight: "),
        (["limit", "p/a", "many"], "max_inflight: "),
        (["maint", "p/a", "--after", "soon"], "after: "),
        (["maint", "p/a", "p/"], "p/: write POOL/SERVER"),
        (["drain", "a"], "a: write POOL/SERVER"),
        (["remove", "p/a", "b"], "b: write POOL/SERVER"),
        (["add", "p/10.0.0.7:80", "10.0.0.8:80"], "10.0.0.8:80: write POOL/ADDRESS"),
        (["add", "p/10.0.0.7:80", "p/10.0.0.8:99999"], ""),
        (["add", "p/10.0.0.7:80", "--weight", "x"], "weight: "),
        (["add", "p/10.0.0.7:80", "--limit", "0"], "max_inflight: "),
        (["explain", "/a", "-H", "x"], "header: 'x' is not name:value"),
        (["explain", "/a", "--from", "there"], "from: 'there' is neither an IP address nor unix"),
        (["split", "web/0", "a=many"], "a=many: a share is a whole number"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_in_itself_is_said_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: list[str], said: str
) -> None:
    def call(*args: object, **more: object) -> Answer:
        raise AssertionError("it was asked")

    monkeypatch.setattr(_client, "call", call)
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"lbproxy {words[0]}: {said}"), told
