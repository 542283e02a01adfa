"""What the admin address says of a request is what becomes of one, and asking changes nothing."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.scenarios.cli.test_commands import lbproxy
from tests.scenarios.control.test_pools_api import call, config
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.waiting import PATIENCE_S, wait_until

Told = dict[str, Any]
PATH = "/api/v1/explain"


def explain(lb: LbProxy, headers: Mapping[str, str] | None = None, **asked: object) -> tuple[int, Told]:
    return call(lb, "GET", f"{PATH}?{urlencode(asked, doseq=True)}", headers=headers)


def ask(lb: LbProxy, target: str = "/") -> tuple[int, str]:
    """Status and request id of the answer to a request, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", lb.port("in"), timeout=PATIENCE_S)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["X-Request-ID"]
    finally:
        connection.close()


def resets(peer: Peer) -> None:
    peer.read_request()
    peer.reset()


def test_whom_it_names_is_whom_a_request_goes_to(tmp_path: Path) -> None:
    with (
        Origin() as a,
        Origin() as b,
        Origin() as c,
        LbProxy(config(a.address, b.address, c.address), tmp_path / "lb") as lb,
    ):
        origins = {origin.address: origin for origin in (a, b, c)}
        for _ in range(7):
            named = {explain(lb, path="/x")[1]["pick"]["server"] for _ in range(3)}
            before = {address: len(origin.requests) for address, origin in origins.items()}
            assert ask(lb, "/x")[0] == 200
            assert {address for address, n in before.items() if len(origins[address].requests) > n} == named
        assert lb.metric("requests_total", listener="in", pool="predict", method="GET", code="2xx") == 7
        status, told = explain(lb, path="/x", method="POST")
        assert (status, told["retry"]["idempotent"]) == (200, False)


def test_what_it_says_of_states_is_what_operators_did(tmp_path: Path) -> None:
    with Origin() as a, Origin() as b, LbProxy(config(a.address, b.address), tmp_path / "lb") as lb:
        admin = f"--admin=127.0.0.1:{lb.port('admin')}"
        assert lbproxy("drain", f"predict/{a.address}", admin, cwd=tmp_path).returncode == 0
        told = explain(lb)[1]
        assert [(item["name"], item["may_take"]) for item in told["pool"]["servers"]] == [
            (a.address, False),
            (b.address, True),
        ]
        assert told["pool"]["servers"][0]["why"].startswith("drained by 127.0.0.1 since ")
        said = lbproxy("explain", "POST", "/predict?x=1", "-H", "a: b", "--from", "10.1.2.3", admin, cwd=tmp_path)
        assert (said.returncode, said.stderr) == (0, "")
        assert said.stdout.startswith(
            f"POST /predict?x=1 goes to predict/{b.address}\nlistener in (http), from 10.1.2.3"
        )


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    with Origin() as a, LbProxy(config(a.address), tmp_path / "lb") as lb:
        for status, words, asked in (
            (422, "metod: unknown parameter; did you mean method?", {"metod": "GET"}),
            (422, "from: 'x' is neither an IP address nor unix", {"from": "x"}),
            (422, "a method, path, host or header holds a line break", {"path": "/\r\nHost: x"}),
            (422, "method is given 2 times", {"method": ["A", "B"]}),
            (404, "there is no listener x; there is in", {"listener": "x"}),
            (404, "request x is not among the last 0", {"request_id": "x"}),
        ):
            got, told = explain(lb, **asked)
            assert (got, told["detail"].startswith(words)) == (status, True), told
        assert call(lb, "POST", PATH)[0] == 405
        admin = f"--admin=127.0.0.1:{lb.port('admin')}"
        missing = lbproxy("explain", "no-such-id", admin, cwd=tmp_path)
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "request no-such-id is not among the last" in missing.stderr
        assert lbproxy("explain", "/", "--from", "x", admin, cwd=tmp_path).returncode == 2


def test_it_is_read_by_those_who_may_read(tmp_path: Path) -> None:
    tokens = {"ci": {"token": "w"}, "eyes": {"token": "r", "scope": "read"}}
    with Origin() as a, LbProxy(config(a.address, admin={"tokens": tokens}), tmp_path / "lb") as lb:
        assert explain(lb)[0] == 200  # from loopback
        assert explain(lb, {"Authorization": "Bearer r"})[0] == 200
        assert explain(lb, {"Authorization": "Bearer x"})[0] == 401
        assert explain(lb, {"Host": "evil.example"})[0] == 403


def test_what_came_of_a_request_is_found_by_its_id(tmp_path: Path) -> None:
    with (
        Origin(default=resets) as broken,
        Origin() as well,
        LbProxy(config(broken.address, well.address), tmp_path / "lb") as lb,
    ):
        found = {}
        for _ in range(4):
            status, request_id = ask(lb, "/a?b=c")
            assert status == 200
            found[request_id] = explain(lb, request_id=request_id)[1]["records"]
        assert all(len(records) == 1 for records in found.values())
        assert {records[0]["record"]["request_id"] for records in found.values()} == set(found)
        [retried] = [records[0] for records in found.values() if records[0]["tries"]][:1]
        assert [item["reason"] for item in retried["tries"]] == ["reset", "ok"]
        assert retried["tries"][0]["why"] == "The server reset the connection; see its log."
        assert retried["end"] == "The server's answer was delivered whole."
        admin = f"--admin=127.0.0.1:{lb.port('admin')}"
        request_id = retried["record"]["request_id"]
        said = lbproxy("explain", request_id, admin, cwd=tmp_path)
        assert said.stdout.startswith("GET /a?b=c ended with 200 (ok): ")
        assert f"\n  1  {broken.address}: reset after " in said.stdout
        told = json.loads(lbproxy("explain", request_id, "--json", admin, cwd=tmp_path).stdout)
        logged = {entry["request_id"]: entry for entry in lb.entries("/a?b=c", 4)}
        assert told["records"][0]["record"] == logged[request_id]


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    with Origin() as a, LbProxy(config(a.address, admin={"recent": 3}), tmp_path / "lb") as lb:
        ids = []
        for _ in range(6):
            ids.append(ask(lb)[1])
            assert explain(lb, request_id=ids[-1])[0] == 200  # each its own batch
        assert [explain(lb, request_id=request_id)[0] for request_id in ids] == [404, 404, 404, 200, 200, 200]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"access_log": "off"}, "no request is recorded: the access log is off"),
        ({"access_log": {"format": "combined"}}, "the access log's format combined has no request ids"),
        ({"admin": {"bind": "127.0.0.1:0", "recent": 0}}, "no request is recorded: admin.recent is 0"),
    ],
)
def test_why_nothing_is_recorded(more: Mapping[str, object], why: str, tmp_path: Path) -> None:
    with Origin() as a, LbProxy({**config(a.address), **more}, tmp_path / "lb") as lb:
        status, told = explain(lb, request_id=ask(lb)[1])
        assert (status, told["detail"][: len(why)]) == (404, why)


def test_lines_that_are_not_written_are_kept(tmp_path: Path) -> None:
    log = {"access_log": {"path": "/dev/null"}}
    with Origin() as a, LbProxy({**config(a.address), **log}, tmp_path / "lb") as lb:
        assert explain(lb, request_id=ask(lb)[1])[0] == 200


def test_connections_have_a_record_too(tmp_path: Path) -> None:
    with Origin() as a:
        site = config(a.address)
        site["listeners"] = [{"name": "in", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "predict"}]
        with LbProxy(site, tmp_path / "lb") as lb:
            told = explain(lb)[1]
            assert (told["pick"]["server"], told["listener"]["mode"]) == (a.address, "tcp")
            with socket.create_connection(("127.0.0.1", lb.port("in")), timeout=PATIENCE_S) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                while client.recv(4096):
                    pass
            wait_until(lambda: len(lb.access_log()) == 1, "the line of the connection")
            [record] = lb.access_log()
            assert explain(lb, request_id=record["request_id"])[1]["records"][0]["record"]["server"] == a.address
