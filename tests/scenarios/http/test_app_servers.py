"""The request corpus through lbproxy to real application servers: what the application saw is what lbproxy forwarded.

A server that would read a forwarded request differently (another length, another target, one request more) shows here,
because the application writes down each request, and that list must equal the access log's, in order.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import normpath
from urllib.parse import unquote_to_bytes

import pytest

from lbproxy.telemetry.accesslog import FIELD_LIMIT
from tests.support.client import Client, receive
from tests.support.corpus import Case, load
from tests.support.daemon import Entry, LbProxy
from tests.support.recording_app import FILE, SERVERS
from tests.support.servers import needed
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
CASES = load(Path(__file__).parent / "corpus" / "requests.txt")
START_S = 60.0
# What lbproxy passes on because HTTP allows it, and these servers answer by themselves.
MAY_REFUSE = {
    "target-8000": ("gunicorn-sync", "gunicorn-gthread"),  # its limit for a whole request line is 4,094
    "field-100": ("gunicorn-sync", "gunicorn-gthread", "werkzeug"),  # with what lbproxy adds it is more than 100
    "field-long-value": ("gunicorn-sync", "gunicorn-gthread"),  # its limit for a field is 8,190
    "hop-upgrade-websocket": ("hypercorn",),  # the application knows no WebSocket
    "hop-upgrade-list": ("hypercorn",),  # as above
    "hop-upgrade-two-lines": ("hypercorn",),
    "hop-upgrade-pipelined-websocket": ("hypercorn",),
    "hop-upgrade-expect": ("hypercorn",),
    # gunicorn takes methods of 3 to 20 characters, llhttp those of its table
    "method-truncated": ("gunicorn-sync", "gunicorn-gthread", "uvicorn-httptools"),
    "method-longest": ("gunicorn-sync", "gunicorn-gthread", "uvicorn-httptools"),
    "method-unknown": ("uvicorn-httptools",),
    "method-unknown-body": ("uvicorn-httptools",),
    "method-unknown-pipelined": ("uvicorn-httptools",),
    "method-prefix": ("uvicorn-httptools",),
    "method-list": ("uvicorn-httptools",),
    "method-rtsp": ("uvicorn-httptools",),
    "method-ice": ("uvicorn-httptools",),
}


CHECKER = "lbproxy-health-check"


@dataclass
class App:
    """One application server, the listener in front of it, and the requests that it wrote down."""

    name: str
    lb: LbProxy
    file: Path
    _seen: list[Entry] = field(default_factory=list)
    _read_bytes: int = 0

    # The daemon of another test may still check a server of its own that had this port before.

    def seen(self) -> list[Entry]:
        """All so far. Each line is read once: this is asked twice for each of hundreds of cases."""
        if self.file.exists():
            with self.file.open("rb") as file:
                file.seek(self._read_bytes)
                lines = file.read().splitlines(keepends=True)
            self._read_bytes += sum(map(len, lines))
            requests = [json.loads(line) for line in lines]
            self._seen += [request for request in requests if ["user-agent", CHECKER] not in request["headers"]]
        return list(self._seen)

    def logged(self) -> list[Entry]:
        lines = self.lb.access_log()
        return [entry for entry in lines if entry["listener"] == self.name and entry["user_agent"] != CHECKER]


def _start(server: str, file: Path, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The server on a port that the kernel chose; it accepts from the first moment, because the socket listens here."""
    with socket.socket() as sock, log.open("wb") as output:
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        # Accepted sockets inherit it; servers that are handed a descriptor do not set it, and stall for 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.set_inheritable(True)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.recording_app", server, str(sock.fileno()), str(file)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), FILE: str(file)},
            pass_fds=[sock.fileno()],
            stdout=output,
            stderr=output,
        )
        return process, sock.getsockname()[1]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, App]]:
    folder = tmp_path_factory.mktemp("apps")
    started = {name: _start(name, folder / f"{name}.jsonl", folder / f"{name}.log") for name in SERVERS}
    pool: dict[str, object] = {"health_check": "off", "timeouts": {"connect": "60s", "response_head": "60s"}}
    # uWSGI does not read what is sent on a connection that it is about to close, until that is learned.
    extra: dict[str, dict[str, object]] = {"uwsgi": {"retry": {"idempotent": True}}}
    config: dict[str, object] = {
        "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name, "protocols": ["h1"]} for name in SERVERS],
        "pools": {
            name: {"servers": [f"127.0.0.1:{port}"], **pool, **extra.get(name, {})}
            for name, (_, port) in started.items()
        },
    }
    try:
        with LbProxy(config, folder / "lb") as lb:
            yield {name: App(name, lb, folder / f"{name}.jsonl") for name in SERVERS}
    finally:
        for process, _ in started.values():
            process.terminate()
        for process, _ in started.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)


def play(app: App, case: Case) -> str:
    """Send a case; a complaint, or "" if the answers are as they have to be."""
    with Client(app.lb.port(app.name), timeout_s=START_S) as client:
        client.send(case.data)
        methods = ["HEAD"] if case.data.startswith(b"HEAD") else []
        try:
            exchange = receive(client, case.count if case.kind == "forward" else 1, methods)
        except TimeoutError:
            return f"{case.id}: no answer in {START_S:g} s"
    if exchange.error or exchange.cut is not None:
        return f"{case.id}: {exchange.error or 'cut off'}"
    refused = [status for status in exchange.statuses if status != 200]
    if case.kind == "reject" and set(exchange.statuses) - case.codes:
        return f"{case.id}: {exchange.statuses} instead of {sorted(case.codes)}"
    if case.kind == "forward" and (
        len(exchange.statuses) != case.count or (refused and app.name not in MAY_REFUSE.get(case.id, ()))
    ):
        return f"{case.id}: {exchange.statuses}"
    return ""


def same_request(seen: Entry, logged: Entry) -> bool:
    """Request id, method, decoded path, query and body length of a record and a log line."""
    path, _, query = str(logged["target"]).partition("?")
    if len(path) == FIELD_LIMIT and path.endswith("..."):  # the log shortens what is longer
        path = path.removesuffix("...")
        seen = {**seen, "path": str(seen["path"])[: len(path)]}
    decoded = unquote_to_bytes(path.encode("latin-1"))
    spellings = {decoded.decode("latin-1"), decoded.decode("utf-8", "replace"), path}
    if path.startswith("//"):
        spellings |= {"/" + spelling.lstrip("/") for spelling in spellings}  # gunicorn's and werkzeug's reading
    if logged["listener"] == "uwsgi":  # it resolves dot segments and merges slashes itself
        spellings |= {normpath(spelling) + "/" * spelling.endswith(("/", "/.", "/..")) for spelling in spellings}
        spellings |= {re.sub("/+", "/", spelling) for spelling in spellings}
        if re.search("%(?![0-9A-Fa-f]{2})", path):  # and makes of such a thing whatever comes
            spellings.add(str(seen["path"]))
    spellings |= {spelling.partition(";")[0] for spelling in spellings} | ({"", "/*"} if path == "*" else set())
    headers = seen["headers"]
    assert isinstance(headers, list)
    return (
        [value for name, value in headers if name == "x-request-id"] == [logged["request_id"]]
        and seen["method"] == logged["method"]
        and seen["path"] in spellings
        and seen["query"] == query
        and len(base64.b64decode(str(seen["body"]))) == logged["bytes_in"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_the_application_sees_what_lbproxy_forwarded(daemon: dict[str, App], server: str) -> None:
    if server == "uwsgi":
        needed(server)
    app = daemon[server]
    complaints = []
    bodies: dict[int, Case] = {}
    for case in CASES:
        before = len(app.seen())
        complaint = play(app, case)
        complaints += [complaint] if complaint else []
        after = app.seen()
        if case.kind == "reject" and len(after) > before:
            complaints.append(f"{case.id}: the application got {after[before:]}")
        if case.kind == "forward" and case.count == 1 and len(after) == before + 1:
            bodies[before] = case
        if any("smuggled" in str(request["path"]) for request in after[before:]):
            complaints.append(f"{case.id}: smuggled")
    assert not complaints, "\n".join(complaints)
    seen = app.seen()
    answered = wait_until(lambda: _answered(app, len(seen)), f"{len(seen)} log lines with the application's 200")
    assert [same_request(*pair) for pair in zip(seen, answered, strict=True)] == [True] * len(seen), first_difference(
        seen, answered
    )
    for position, case in bodies.items():
        assert base64.b64decode(str(seen[position]["body"])) == case.expected_body, case.id
    forged = [request for request in seen if forged_fields(request)]
    assert not forged, forged[0]


def _answered(app: App, at_least: int) -> list[Entry]:
    lines = [entry for entry in app.logged() if entry["server"] and entry["status"] == 200]
    return lines if len(lines) >= at_least else []


def first_difference(seen: list[Entry], logged: list[Entry]) -> str:
    for one, other in zip(seen, logged, strict=False):
        if not same_request(one, other):
            return f"the application saw {one}\nlbproxy logged {other}"
    return ""


def forged_fields(request: Entry) -> list[str]:
    """Names that only a client could have sent, or values that only it could have claimed."""
    headers = request["headers"]
    assert isinstance(headers, list)
    found = [name for name, value in headers if name == "x-forwarded-for" and value != "127.0.0.1"]
    found += [name for name, _ in headers if name in ("forwarded", "x-real-ip", "keep-alive", "proxy-connection")]
    return found + [name for name, _ in headers if name.startswith("x-client-cert")]
