"""A reload while traffic flows: what is in flight ends as it began, what comes next sees the new file."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.ports import consecutive_ports
from tests.support.waiting import PATIENCE_S, wait_until

Config = dict[str, Any]


class Reloads:
    """A daemon and its file."""

    def __init__(self, lb: LbProxy) -> None:
        self.lb = lb
        self.config: Config = yaml.safe_load(lb.config_path.read_text())

    def write(self, text: str | None = None) -> None:
        """The file, without a word to the daemon."""
        self.lb.config_path.write_text(yaml.safe_dump(self.config, sort_keys=False) if text is None else text)

    def ask(self, text: str | None = None) -> tuple[int, Config]:
        """Write the file, if there is other text, and have it read."""
        self.write(text)
        with Client(self.lb.port("admin")) as admin:
            admin.send(b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = admin.response()
        return answer.status, json.loads(answer.body)

    def reload(self) -> list[str]:
        """The texts of the steps."""
        status, told = self.ask()
        assert status == 200, told
        return [step["text"] for step in told["steps"]]

    @property
    def pool(self) -> Config:
        found: Config = self.config["pools"]["p"]
        return found

    def port(self, listener: str) -> int:
        """Of a listener that came with a reload."""
        found: list[Config] = self.lb.status()["listeners"]  # type: ignore[assignment]
        return next(int(item["bind"][0].rpartition(":")[2]) for item in found if item["name"] == listener)

    def servers(self, pool: str = "p") -> dict[str, Config]:
        return {str(server["name"]): server for server in self.status(pool)["servers"]}

    def status(self, pool: str = "p") -> Config:
        pools: list[Config] = self.lb.status()["pools"]  # type: ignore[assignment]
        return next(item for item in pools if item["name"] == pool)


def get(port: int, path: str = "/") -> tuple[int, bytes]:
    with Client(port) as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        answer = client.response()
        return answer.status, answer.body


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Origin()) for _ in range(3)]


@pytest.fixture
def reloads(origins: list[Origin], tmp_path: Path) -> Iterator[Reloads]:
    config: Config = {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": [origins[0].address], "health_check": {"interval": "200ms"}}},
    }
    with LbProxy(config, tmp_path / "lb") as lb:
        yield Reloads(lb)


def test_servers_come_stay_and_go(reloads: Reloads, origins: list[Origin]) -> None:
    lb = reloads.lb
    assert get(lb.port("in"))[0] == 200
    reloads.pool["servers"] = [origins[0].address, {"address": origins[1].address, "weight": 3}]
    assert reloads.reload() == [f"add server p/{origins[1].address}"]
    wait_until(lambda: reloads.servers()[origins[1].address]["state"] == "up", "the newcomer passes its check")
    assert reloads.servers()[origins[1].address]["weight"] == 3
    assert reloads.servers()[origins[0].address]["requests"] == 1, "who stays keeps its counters"
    reloads.pool["servers"] = [{"address": origins[1].address, "weight": 5}]
    assert reloads.reload() == [
        f"change server p/{origins[1].address}: weight: 3 -> 5",
        f"drop server p/{origins[0].address}",
    ]
    wait_until(lambda: list(reloads.servers()) == [origins[1].address], "the old one leaves")
    assert reloads.servers()[origins[1].address]["weight"] == 5
    assert get(lb.port("in"))[0] == 200
    wait_until(lambda: f'server="{origins[0].address}"' not in lb.exposition(), "its series leave")
    assert lb.metric("config_reloads_total", result="success") == 2
    assert lb.metric("config_last_reload_successful") == 1


def test_all_servers_are_replaced_without_a_gap(reloads: Reloads, origins: list[Origin]) -> None:
    """The old ones go on until one of the new ones has passed its check."""
    port = reloads.lb.port("in")
    with traffic(port) as answers:
        for turn in (1, 2, 0, 1, 2, 0):
            reloads.pool["servers"] = [origins[turn].address]
            reloads.reload()
            wait_until(lambda turn=turn: list(reloads.servers()) == [origins[turn].address], "the old one leaves")  # type: ignore[misc]
            answers.wait(5)
    assert answers.failed == []


class Answers:
    def __init__(self) -> None:
        self.count = 0
        self.failed: list[object] = []

    def wait(self, more: int) -> None:
        """For so many more, or for one that failed."""
        wanted = self.count + more
        wait_until(lambda: self.count >= wanted or self.failed, "requests flow")


@contextlib.contextmanager
def traffic(port: int, n_clients: int = 3) -> Iterator[Answers]:
    """Requests on kept connections, one after the other."""
    answers, is_over = Answers(), threading.Event()

    def work(number: int) -> None:
        with Client(port) as client:
            while not is_over.is_set():
                try:
                    client.send(b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" % number)
                    answer = client.response()
                except Exception as error:
                    answers.failed.append(error)
                    return
                answers.count += 1
                if answer.status != 200 or not answer.is_kept_alive:
                    answers.failed.append(answer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(n_clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        for thread in threads:
            thread.join(PATIENCE_S)


def one_request_a_connection(reloads: Reloads) -> None:
    """A script of the origin serves one connection: let that be the next request's."""
    reloads.pool.update({"health_check": "off", "keep_alive": "off"})
    reloads.reload()


def test_a_request_in_flight_keeps_what_it_began_with(reloads: Reloads, origins: list[Origin]) -> None:
    lb = reloads.lb
    go = threading.Event()
    one_request_a_connection(reloads)

    def slow(c: Peer) -> None:
        c.read_request()
        c.wait(go)
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    origins[0].script(slow)
    with Client(lb.port("in")) as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: reloads.servers()[origins[0].address]["inflight"] == 1, "it is at the server")
        reloads.config["listeners"][0] = {
            "name": "in",
            "bind": reloads.config["listeners"][0]["bind"],
            "routes": [{"respond": {"status": 418, "body": "new"}}],
        }
        steps = reloads.reload()
        assert len(steps) == 1 and steps[0].startswith("replace routes of listener ")
        go.set()
        assert client.response().body == b"ok"
        client.send(b"GET /again HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.response().status == 418, "the next head on the same connection sees the new routes"


def test_a_file_that_cannot_be_used_changes_nothing(reloads: Reloads, origins: list[Origin]) -> None:
    lb = reloads.lb
    good = yaml.safe_dump(reloads.config)
    for broken in (
        "pools: [",
        good.replace("pools:", "polls:"),
        good.replace("servers:", "servers: x", 1),
        "",
    ):
        status, told = reloads.ask(broken)
        assert status == 422 and told["problems"], broken
        assert all(str(problem).startswith(f"{lb.config_path}:") for problem in told["problems"])
        assert get(lb.port("in"))[0] == 200
    assert lb.metric("config_reloads_total", result="failure") == 4
    assert lb.metric("config_last_reload_successful") == 0
    assert reloads.ask(good)[1]["steps"] == []
    assert lb.metric("config_last_reload_successful") == 1


def test_an_address_that_is_taken_changes_nothing(reloads: Reloads, origins: list[Origin]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        reloads.config["listeners"].append({"name": "new", "bind": f"127.0.0.1:{other.getsockname()[1]}", "pool": "p"})
        reloads.pool["servers"].append(origins[1].address)
        status, told = reloads.ask()
        assert status == 422 and "cannot listen on" in told["problems"][0]
        assert list(reloads.servers()) == [origins[0].address]
    reloads.lb.baseline_fds += 1  # the new listener's
    assert [step.partition(" ")[0] for step in reloads.reload()] == ["add", "add"]
    assert get(reloads.port("new"))[0] == 200


def test_listeners_come_and_go(reloads: Reloads, origins: list[Origin]) -> None:
    lb = reloads.lb
    first = reloads.config["listeners"][0]
    one_request_a_connection(reloads)
    reloads.config["listeners"].append({"name": "two", "bind": f"127.0.0.1:{consecutive_ports(1)}", "pool": "p"})
    reloads.reload()
    port = reloads.port("two")
    with Client(port) as idle, Client(port) as busy:
        for client in (idle, busy):
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert client.response().is_kept_alive
        go = threading.Event()

        def slow(c: Peer) -> None:
            c.read_request()
            c.wait(go)
            c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        origins[0].script(slow)
        busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\nX: fresh\r\n\r\n")
        wait_until(lambda: reloads.servers()[origins[0].address]["inflight"] == 1, "it is at the server")
        reloads.config["listeners"] = [first]
        assert reloads.reload()[0].startswith("drop listener ")
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        assert idle.wait_end() == "fin", "who has nothing under way is let go"
        go.set()
        answer = busy.response()
        assert answer.status == 200 and not answer.is_kept_alive
    wait_until(lambda: 'listener="two"' not in lb.exposition(), "its series leave")
    assert get(lb.port("in"))[0] == 200


def test_pools_come_and_go(reloads: Reloads, origins: list[Origin]) -> None:
    lb = reloads.lb
    reloads.config["pools"]["q"] = {"servers": [origins[1].address]}
    reloads.config["listeners"][0]["pool"] = "q"
    steps = reloads.reload()
    assert steps[:2] == ["add pool q", f"add server q/{origins[1].address}"]
    assert get(lb.port("in"))[0] == 200
    assert reloads.servers("q")[origins[1].address]["requests"] == 1
    del reloads.config["pools"]["p"]
    assert reloads.reload() == [f"drop server p/{origins[0].address}", "drop pool p"]
    wait_until(lambda: [pool["name"] for pool in lb.status()["pools"]] == ["q"], "the pool leaves")  # type: ignore[attr-defined]
    wait_until(lambda: 'pool="p"' not in lb.exposition(), "its series leave")


def test_a_live_value_stands_until_the_file_says_another(reloads: Reloads, origins: list[Origin]) -> None:
    name = origins[0].address
    reloads.pool["servers"] = [{"address": name, "weight": 2}]
    reloads.reload()
    patch(reloads.lb, f"/api/v1/pools/p/servers/{name}", {"weight": 9, "max_inflight": 4})
    reloads.pool["timeouts"] = {"read": "5m"}
    reloads.reload()
    assert (reloads.servers()[name]["weight"], reloads.servers()[name]["max_inflight"]) == (9, 4)
    reloads.pool["servers"] = [{"address": name, "weight": 3}]
    reloads.reload()
    assert (reloads.servers()[name]["weight"], reloads.servers()[name]["max_inflight"]) == (3, 4)


def patch(lb: LbProxy, path: str, values: Config) -> None:
    body = json.dumps(values).encode()
    with Client(lb.port("admin")) as admin:
        admin.send(
            f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        assert admin.response().status == 200


def test_sighup(reloads: Reloads, origins: list[Origin]) -> None:
    reloads.pool["servers"].append(origins[1].address)
    reloads.lb.config_path.write_text(yaml.safe_dump(reloads.config))
    reloads.lb.signal(signal.SIGHUP)
    wait_until(lambda: len(reloads.servers()) == 2, "the file is in force")
    reloads.lb.wait_logged(f"reload: add server p/{origins[1].address}, in ")
    for _ in range(50):
        reloads.lb.signal(signal.SIGHUP)
    wait_until(lambda: reloads.lb.metric("config_reloads_total", result="success") >= 2, "they are heeded")
    assert reloads.lb.status()["state"] == "running"


def test_a_watched_file(reloads: Reloads, origins: list[Origin]) -> None:
    lb = reloads.lb

    def replace(text: str) -> None:
        """In one step: between two it would be an empty file, which may be seen."""
        fresh = lb.config_path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(lb.config_path)

    reloads.config["watch"] = True
    reloads.reload()
    reloads.pool["servers"].append(origins[1].address)
    replace(yaml.safe_dump(reloads.config))
    wait_until(lambda: len(reloads.servers()) == 2, "the file is in force by itself")
    replace("listeners: [")
    lb.wait_logged("reload by watch: the config file cannot be used, the one in force stays: ")
    assert lb.metric("config_last_reload_successful") == 0
    reloads.config["watch"] = False
    replace(yaml.safe_dump(reloads.config))
    wait_until(lambda: lb.metric("config_last_reload_successful") == 1, "the good file is in force")
    assert lb.metric("config_reloads_total", result="success") == 3
    assert lb.metric("config_reloads_total", result="failure") == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strategy", "round_robin"),
        ("max_inflight", 3),
        ("queue", {"size": 5, "timeout": "1s", "order": "fifo"}),
        ("circuit_breaker", "off"),
        ("circuit_breaker", {"failures": 1}),
        ("keep_alive", "off"),
        ("keep_alive", {"idle": 1, "max_requests": 2}),
        ("health_check", "off"),
        ("health_check", {"type": "http", "path": "/h", "interval": "100ms"}),
        ("slow_start", "10s"),
        ("fail_open", "off"),
        ("retry", "off"),
        ("proxy_protocol", "v1"),
        ("limits", {"head_bytes": "1KiB"}),
        ("headers", {"response": {"set": {"x-new": "1"}}}),
    ],
)
def test_settings_of_a_pool(reloads: Reloads, key: str, value: object) -> None:
    """There and back, under traffic, and nobody notices."""
    with traffic(reloads.lb.port("in")) as answers:
        wait_until(lambda: answers.count > 3, "requests flow")
        if key != "proxy_protocol":  # which the server does not understand
            reloads.pool[key] = value
            assert len(reloads.reload()) == 1
            seen = answers.count
            wait_until(lambda: answers.count > seen + 5, "they go on")
            del reloads.pool[key]
        reloads.pool["health_check"] = {"interval": "200ms"}
        reloads.reload()
        seen = answers.count
        wait_until(lambda: answers.count > seen + 5, "they go on")
    assert answers.failed == []
