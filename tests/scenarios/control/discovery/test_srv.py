"""A real daemon that asks a real DNS server for SRV records, which change while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.dns_server import SILENCE, DnsServer, addresses
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.waiting import wait_until

NAME = "_predict._tcp.example.org"
SOURCE = f"srv:{NAME}"


class Stage:
    """A pool that comes from SRV records only, and three servers that they may name, on addresses of their own."""

    def __init__(self, directory: Path, dns: DnsServer, hold: str, pool: dict[str, object]) -> None:
        self.dns = dns
        self.origins = [Origin(host=f"127.0.0.{number}") for number in (11, 12, 13)]
        addresses(dns, a_org=["127.0.0.11"], b_org=["127.0.0.12"], c_org=["127.0.0.13"])
        self.ports = [origin.port for origin in self.origins]
        srv = {"srv": NAME, "servers": [dns.address], "hold": hold, "interval": "1s"}
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"dns": srv, "health_check": {"interval": "100ms", "rise": 1}, **pool}},
        }
        self.lb = LbProxy(config, directory)

    def set(self, *hosts: str, priority: int = 0, weight: int = 1) -> None:
        self.dns.set_srv(NAME, *self.records(*hosts, priority=priority, weight=weight))

    def records(self, *hosts: str, priority: int = 0, weight: int = 1) -> list[tuple[int, int, int, str]]:
        return [(priority, weight, self.ports["abc".index(host)], f"{host}.org") for host in hosts]

    @property
    def pool(self) -> dict[str, object]:
        return self.lb.pool_status()

    def servers(self) -> dict[str, dict[str, object]]:
        """By the first letter of the name."""
        return {str(server["name"])[0]: server for server in self.lb.server_status()}

    def wait_servers(self, hosts: str) -> None:
        def are_up() -> bool:
            servers = self.servers()
            return "".join(sorted(servers)) == hosts and all(item["state"] == "up" for item in servers.values())

        wait_until(are_up, f"the servers to be {hosts}")

    def wait_error(self, error: str) -> None:
        def is_told() -> bool:
            discovery = self.pool["discovery"]
            assert isinstance(discovery, list)
            return error in str(discovery[0]["error"])

        wait_until(is_told, f"the status to say {error!r}")

    def ask(self) -> int:
        with Client(self.lb.port("in")) as client:
            return client.ask(get("/x")).status


@contextmanager
def running(directory: Path, *hosts: str, hold: str = "5m", **pool: object) -> Iterator[Stage]:
    with DnsServer() as dns:
        stage = Stage(directory / "lb", dns, hold, pool)
        stage.set(*hosts)
        try:
            with stage.lb:
                yield stage
                for origin in stage.origins:
                    origin.reset()
        finally:
            for origin in stage.origins:
                origin.close()


def test_servers_come_and_go(tmp_path: Path) -> None:
    with running(tmp_path, "a") as stage:
        stage.wait_servers("a")
        name = f"a.org:{stage.ports[0]}/127.0.0.11"
        assert (stage.servers()["a"]["name"], stage.servers()["a"]["source"]) == (name, "dns")
        assert stage.ask() == 200
        stage.set("a", "b", "c")
        stage.wait_servers("abc")
        stage.set("c")
        stage.wait_servers("c")
        assert stage.ask() == 200
        assert stage.lb.metric("discovery_errors_total", pool="p", source=SOURCE) == 0
        assert stage.lb.metric("discovery_last_success_timestamp_seconds", pool="p", source=SOURCE) > 1e9


def test_an_address_of_a_target_changes(tmp_path: Path) -> None:
    with running(tmp_path, "a") as stage:
        stage.wait_servers("a")
        with Origin(host="127.0.0.14", port=stage.ports[0]) as other:
            addresses(stage.dns, a_org=["127.0.0.14"])
            wait_until(lambda: stage.servers()["a"]["address"] == other.address, "the new address to be used")
            stage.wait_servers("a")
            assert stage.ask() == 200
            other.reset()


def test_weights_count_and_change_live(tmp_path: Path) -> None:
    with running(tmp_path, strategy="weighted_round_robin") as stage:
        stage.dns.set_srv(NAME, *stage.records("a", weight=3), *stage.records("b", weight=0))
        stage.wait_servers("ab")
        assert [stage.servers()[host]["weight"] for host in "ab"] == [3, 1]
        assert [stage.ask() for _ in range(8)] == [200] * 8
        assert [stage.servers()[host]["requests"] for host in "ab"] == [6, 2]
        stage.dns.set_srv(NAME, *stage.records("a", weight=1), *stage.records("b", weight=7))
        wait_until(lambda: [stage.servers()[host]["weight"] for host in "ab"] == [1, 7], "the new weights to count")
        assert [stage.servers()[host]["requests"] for host in "ab"] == [6, 2], "and nothing else changed"


def test_the_lowest_priority_is_the_pool(tmp_path: Path) -> None:
    with running(tmp_path) as stage:
        stage.dns.set_srv(NAME, *stage.records("a", priority=10), *stage.records("b", priority=20))
        stage.wait_servers("ab")
        assert [stage.servers()[host]["backup"] for host in "ab"] == [False, True]
        assert [stage.ask() for _ in range(4)] == [200] * 4
        assert [stage.servers()[host]["requests"] for host in "ab"] == [4, 0]
        stage.dns.set_srv(NAME, *stage.records("a", priority=30), *stage.records("b", priority=20))
        wait_until(lambda: stage.servers()["a"]["backup"] is True, "a to become the backup")
        assert [stage.ask() for _ in range(4)] == [200] * 4
        assert [stage.servers()[host]["requests"] for host in "ab"] == [4, 4]


@pytest.mark.parametrize(
    ("mood", "error"), [("SERVFAIL", "said SERVFAIL"), (SILENCE, "no answer within 3 s")], ids=["servfail", "silence"]
)
def test_a_resolver_that_fails_takes_nothing_away(tmp_path: Path, mood: str, error: str) -> None:
    with running(tmp_path, "a", hold="0s") as stage:
        stage.wait_servers("a")
        stage.dns.set_mood(NAME, mood)
        stage.wait_error(error)
        assert stage.ask() == 200
        stage.wait_servers("a")
        assert stage.lb.metric("discovery_errors_total", pool="p", source=SOURCE) >= 1
        wait_until(lambda: "the last good answer stays in use" in stage.lb.stderr, "the log to say it")
        assert stage.lb.stderr.count(f"looking up SRV {NAME} failed") == 1
        stage.dns.set_mood(NAME)
        stage.set("a", "b")
        stage.wait_servers("ab")
        stage.lb.wait_logged(f"SRV {NAME} resolves again, to 2 servers")


def test_a_name_that_is_gone_for_less_than_hold(tmp_path: Path) -> None:
    with running(tmp_path, "a") as stage:
        stage.wait_servers("a")
        asked = stage.dns.asked(NAME)
        stage.set()
        stage.wait_error("there is no such name")
        wait_until(lambda: stage.dns.asked(NAME) >= asked + 3, "the name to be asked for again")
        assert stage.ask() == 200
        stage.wait_servers("a")


def test_a_name_that_is_gone_for_more_than_hold(tmp_path: Path) -> None:
    with running(tmp_path, "a", hold="1s") as stage:
        stage.wait_servers("a")
        stage.set()
        wait_until(lambda: not stage.servers(), "the pool to be empty")
        assert stage.ask() == 503
        assert b"SRV" in stage.lb.admin_get("/readyz")[1]
        stage.set("b")
        stage.wait_servers("b")
        assert stage.ask() == 200


def test_a_pool_starts_empty_and_recovers(tmp_path: Path) -> None:
    with running(tmp_path) as stage:
        with Client(stage.lb.port("in")) as client:
            answer = client.ask(get("/x"))
        assert answer.status == 503 and answer.get("Retry-After")
        status, body = stage.lb.admin_get("/readyz")
        assert status == 503 and f"DNS (SRV {NAME}): there is no such name" in body.decode()
        stage.set("a")
        stage.wait_servers("a")
        assert stage.ask() == 200


def test_a_failed_connect_is_a_reason_to_ask(tmp_path: Path) -> None:
    """Long before the interval is over."""
    with DnsServer() as dns:
        stage = Stage(tmp_path / "lb", dns, "5m", {"dns": {"srv": NAME, "servers": [dns.address], "interval": "1h"}})
        stage.set("a")
        try:
            with stage.lb:
                stage.wait_servers("a")
                asked = dns.asked(NAME)
                stage.set("b")
                stage.origins[0].close()
                wait_until(lambda: stage.ask() == 200, "the other server to be found")
                assert dns.asked(NAME) > asked, "the interval is an hour"
                for origin in stage.origins[1:]:
                    origin.reset()
        finally:
            for origin in stage.origins:
                origin.close()
