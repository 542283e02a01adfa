"""What belongs to the whole process changes with a reload too: logs, limits, the admin address, certificates."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scenarios.process.test_reload import Reloads, get, traffic
from tests.support.certificates import Authority
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.waiting import PATIENCE_S, wait_until


@pytest.fixture
def reloads(tmp_path: Path) -> Iterator[Reloads]:
    with Origin() as origin:
        config: dict[str, Any] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path / "lb") as lb:
            yield Reloads(lb)


def test_the_access_log_moves_and_no_line_is_lost(reloads: Reloads, tmp_path: Path) -> None:
    lb, other = reloads.lb, tmp_path / "other.log"
    port = lb.port("in")
    with traffic(port) as answers:
        wait_until(lambda: answers.count > 5, "requests flow")
        reloads.config["access_log"]["path"] = str(other)
        reloads.reload()
        seen = answers.count
        wait_until(lambda: answers.count > seen + 5, "requests flow")
    assert answers.failed == []

    def lines() -> int:
        texts = [path.read_text() for path in (lb.access_log_path, other) if path.exists()]
        return sum(text.count("\n") for text in texts)

    wait_until(lambda: lines() == answers.count, "a line for each request")
    assert all(json.loads(line)["status"] == 200 for line in other.read_text().splitlines())
    reloads.config["access_log"]["format"] = "common"
    reloads.reload()
    get(port)
    wait_until(lambda: other.read_text().splitlines()[-1].startswith("127.0.0.1 - - ["), "the other format")
    reloads.config["access_log"] = "off"
    reloads.reload()
    lb.baseline_fds -= 1
    assert get(port)[0] == 200
    reloads.config["access_log"] = {"path": str(tmp_path / "missing" / "x.log")}
    status, told = reloads.ask()
    assert status == 422 and "cannot open" in told["problems"][0]


def test_the_log_has_another_level_and_format(reloads: Reloads) -> None:
    reloads.config["log"] = {"level": "warning", "format": "json"}
    reloads.reload()
    begun = len(reloads.lb.stderr)
    reloads.config["log"]["level"] = "info"
    reloads.reload()
    wait_until(lambda: "reload: " in reloads.lb.stderr[begun:], "it is told again")
    first = next(line for line in reloads.lb.stderr[begun:].splitlines() if "reload: " in line)
    assert json.loads(first)["message"].startswith("reload: change process: log.level: warning -> info")


def test_the_admin_address_moves(reloads: Reloads) -> None:
    old, new = reloads.lb.port("admin"), consecutive_ports(1)
    reloads.config["admin"] = {"bind": f"127.0.0.1:{new}", "tokens": {"ci": "s3cret"}}
    assert reloads.reload(), "which is answered at the old one"
    status, _ = ask_status(new)
    assert status == 200
    wait_until(lambda: is_refused(old), "nobody listens at the old one")
    assert ask_status(new, "Bearer wrong")[0] == 401
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        reloads.config["admin"]["bind"] = f"127.0.0.1:{other.getsockname()[1]}"
        reloads.lb.config_path.write_text(yaml.safe_dump(reloads.config))
        with Client(new) as client:
            answer = client.ask(
                b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\n\r\n"
            )
        assert answer.status == 422 and b"admin.bind: cannot listen on" in answer.body
    assert ask_status(new)[0] == 200
    reloads.lb.addresses["admin"] = f"127.0.0.1:{new}"


def ask_status(port: int, authorization: str = "Bearer s3cret") -> tuple[int, bytes]:
    with Client(port) as client:
        answer = client.ask(
            f"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n".encode()
        )
        return answer.status, answer.body


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_limit_on_connections(reloads: Reloads) -> None:
    port = reloads.lb.port("in")
    with Client(port) as one, Client(port) as two:
        for client in (one, two):
            assert client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        reloads.config["limits"] = {"connections": 2}
        reloads.reload()
        for client in (one, two):
            assert client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        with Client(port) as third:  # waits until an idle one makes way
            assert third.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        del reloads.config["limits"]
        reloads.reload()
        with Client(port) as fourth, Client(port) as fifth, Client(port) as sixth:
            for client in (fourth, fifth, sixth):
                assert client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200


def test_trusted_proxies(reloads: Reloads) -> None:
    port = reloads.lb.port("in")
    request = b"GET / HTTP/1.1\r\nHost: h\r\nX-Request-ID: mine\r\n\r\n"
    with Client(port) as client:
        assert client.ask(request).get("x-request-id") != "mine"
        reloads.config["trusted_proxies"] = ["127.0.0.0/8"]
        reloads.reload()
        assert client.ask(request).get("x-request-id") == "mine", "on the connection that was open, too"
        del reloads.config["trusted_proxies"]
        reloads.reload()
        assert client.ask(request).get("x-request-id") != "mine"


def test_certificates_are_swapped_and_connections_live_on(reloads: Reloads, tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    one, two = ca.issue("one", "one.example"), ca.issue("two", "two.example")
    port = reloads.lb.port("in")
    listener = reloads.config["listeners"][0]
    listener["tls"] = one.tls
    reloads.reload()

    def connect(name: str) -> ssl.SSLSocket:
        return ca.trusting().wrap_socket(
            socket.create_connection(("127.0.0.1", port), PATIENCE_S), server_hostname=name
        )

    with connect("one.example") as old:
        listener["tls"] = two.tls
        reloads.reload()
        with connect("two.example") as new:
            for sock in (old, new):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(ssl.SSLCertVerificationError):
            connect("one.example")
        listener["tls"] = {**two.tls, "key": one.key}
        status, told = reloads.ask()
        assert status == 422 and told["problems"][0].startswith(f"{reloads.lb.config_path}:")
        ca.issue("two", "three.example")  # new files under the names that are in use
        listener["tls"] = two.tls
        assert reloads.reload() == []
        with connect("three.example"):
            old.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert old.recv(65536).startswith(b"HTTP/1.1 200 ")
