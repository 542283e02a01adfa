"""What a client sent can be had back from the log, byte for byte, in every format."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support import log_text
from tests.support.client import Client
from tests.support.daemon import LbProxy, Settings
from tests.support.waiting import wait_until

AGENT = b'caf\xe9 "quoted\\" \xff\xc3\xa9 \\x41 -'


def config(folder: Path, log_format: str) -> Settings:
    return {
        "listeners": [
            {"name": "web", "bind": "127.0.0.1:0", "protocols": "h1", "routes": [{"respond": {"status": 200}}]}
        ],
        "access_log": {"path": str(folder / "access.log"), "format": log_format},
    }


@pytest.mark.parametrize("log_format", ["json", "common", "combined"])
def test_bytes_survive(log_format: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with LbProxy(config(tmp_path, log_format), tmp_path) as lb:
        with Client(lb.port("web")) as client:
            client.send(b'GET /a"b\\c HTTP/1.1\r\nHost: a\r\nUser-Agent: ' + AGENT + b"\r\n\r\n")
            assert client.response().status == 200
        with Client(lb.port("web")) as client:
            client.send(b"GET /caf\xe9\x07 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.response().status == 400
        with Client(lb.port("web")) as client:
            client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert client.response().status == 505
        lines = wait_until(lambda: found if len(found := log.read_text().splitlines()) == 3 else [], "three lines")
    targets, protocols = [], []
    for line in lines:
        if log_format == "json":
            fields = json.loads(line)
            target, protocol = fields["target"], fields["protocol"]
        else:
            request = re.search(r'"((?:[^"\\]|\\.)*)"', line)
            assert request is not None
            target, protocol = map(log_text.unescaped, request[1].split(" ")[1:])
        targets.append(log_text.to_wire(target))
        protocols.append(protocol)
    assert targets == [b'/a"b\\c', b"/caf\xe9\x07", b"*"]
    assert protocols == ["HTTP/1.1", "HTTP/1.1", "HTTP/2.0"]
    if log_format == "json":
        assert log_text.to_wire(json.loads(lines[0])["user_agent"]) == AGENT
    elif log_format == "combined":
        assert log_text.to_wire(log_text.unescaped(re.findall(r'"((?:[^"\\]|\\.)*)"', lines[0])[-1])) == AGENT


def test_the_first_lines_tell_what_runs(tmp_path: Path) -> None:
    settings = {
        "listeners": [{"name": "web", "bind": "127.0.0.1:0", "pool": "app"}],
        "pools": {"app": {"servers": ["127.0.0.1:1"], "health_check": "off"}},
    }
    with LbProxy(settings, tmp_path) as lb:
        wait_until(lambda: "ready, " in lb.stderr, "the log to say that it is ready")
        said = [line for line in lb.stderr.splitlines() if " INFO " in line and "interpreted" not in line]
        lines = [line.partition(" INFO ")[2] for line in said]
    assert lines[0].startswith("lbproxy: lbproxy ") and lines[0].endswith(f"config: {lb.config_path}")
    assert lines[1] == "lbproxy: pool app: no health checks, least_connections, servers 127.0.0.1:1"
    assert any(line.startswith("lbproxy: listening name=web address=127.0.0.1:") for line in lines[2:])
    assert lines[4].startswith("lbproxy.control: ready, ")
