"""Addresses come, move and go while others serve; who waits at one that stays is served."""

from __future__ import annotations

import contextlib
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.process.test_reload import Reloads, get, traffic
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until


@pytest.fixture
def reloads(tmp_path: Path) -> Iterator[Reloads]:
    with Origin() as origin:
        config: dict[str, Any] = {
            "listeners": [{"name": "in", "bind": f"127.0.0.1:{consecutive_ports(1)}", "pool": "p"}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path / "lb") as lb:
            yield Reloads(lb)


def bind(reloads: Reloads, *addresses: str, name: str = "in") -> None:
    reloads.config["listeners"] = [{"name": name, "bind": list(addresses), "pool": "p"}]
    reloads.lb.baseline_fds += len(addresses) - len(bound(reloads))
    reloads.reload()


def bound(reloads: Reloads) -> list[str]:
    listeners: Any = reloads.lb.status()["listeners"]
    return [address for item in listeners for address in item["bind"]]


def test_an_address_that_contains_the_one_before_is_bound_beside_it(reloads: Reloads) -> None:
    """127.0.0.1 to 0.0.0.0 and back, on one port."""
    port = reloads.lb.port("in")
    for address in ("0.0.0.0", "127.0.0.1", "0.0.0.0"):
        bind(reloads, f"{address}:{port}")
        assert bound(reloads) == [f"{address}:{port}"]
        assert get(port)[0] == 200
        with pytest.raises(OSError), socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))


def test_a_listener_of_two_addresses_loses_one(reloads: Reloads) -> None:
    first, second = reloads.lb.port("in"), consecutive_ports(1)
    bind(reloads, f"127.0.0.1:{first}", f"127.0.0.1:{second}")
    with traffic(first, 1) as answers:
        assert get(second)[0] == 200
        bind(reloads, f"127.0.0.1:{first}")
        with pytest.raises(ConnectionRefusedError):
            get(second)
        seen = answers.count
        wait_until(lambda: answers.count > seen + 3, "the other goes on")
    assert answers.failed == []


def test_a_listener_gets_another_name(reloads: Reloads) -> None:
    port = reloads.lb.port("in")
    with Client(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.response().status == 200
        bind(reloads, f"127.0.0.1:{port}", name="other")
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.response().is_kept_alive
        assert reloads.lb.metric("client_connections", listener="other") == 1
    assert reloads.lb.metric("requests_total", listener="other", pool="p", method="GET", code="2xx") == 1
    wait_until(lambda: 'listener="in"' not in reloads.lb.exposition(), "the series of the old name leave")


def test_the_mode_changes_for_who_comes_next(reloads: Reloads) -> None:
    port = reloads.lb.port("in")
    with Client(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.response().is_kept_alive
        reloads.config["listeners"][0]["mode"] = "tcp"
        reloads.reload()
        with Client(port) as other:
            assert other.ask(b"GET /raw HTTP/1.1\r\nHost: h\r\n\r\n").get("x-request-id") is None, "bytes as they are"
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = client.response()
        assert answer.status == 200 and not answer.is_kept_alive, "who was here is answered in HTTP, and let go"


def test_unix_sockets_come_and_go_and_change_their_permissions(reloads: Reloads, tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    listener: dict[str, Any] = {"name": "unix", "bind": f"unix:{path}", "pool": "p", "mode_bits": "0600"}
    reloads.config["listeners"].append(listener)
    reloads.reload()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    inode = path.stat().st_ino
    listener["mode_bits"] = "0666"
    reloads.reload()
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_ino) == (0o666, inode)
    with Client(str(path)) as client:
        assert client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
    reloads.config["listeners"].pop()
    reloads.reload()
    assert not path.exists()


def test_who_connects_all_the_time_is_never_refused(reloads: Reloads) -> None:
    """A connection for each request, while everything but the address changes."""
    port = reloads.lb.port("in")
    failed: list[object] = []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            try:
                if get(port)[0] != 200:
                    failed.append("status")
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    with contextlib.ExitStack() as stack:
        for thread in threads:
            stack.callback(thread.join, 20)
        stack.callback(is_over.set)
        for number in range(12):
            reloads.config["listeners"][0] |= {
                "name": f"name-{number % 3}",
                "limits": {"headers": 50 + number, "connections_per_ip": 1000 + number},
                "timeouts": {"keep_alive": f"{60 + number}s"},
            }
            reloads.reload()
    assert failed == []
