"""Asking for a slot, waiting for it, and what a defect in between costs: the same for HTTP and TCP."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.api_keys import hash_of, new_key
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.domain.server import Server
from lbproxy.telemetry.slots import POOL, PROCESS, QUEUE_BUCKETS
from tests.support.fake_transport import FakeLb, Peer, ok, post

DEFECTS = PROCESS.column("internal_errors_total")
WAITED = POOL.offset["queue_wait_seconds"]


def config(mode: str, queue: str = "") -> str:
    return f"""
access_log: {{path: /dev/null}}
listeners: [{{name: main, bind: "127.0.0.1:5000", mode: {mode}, pool: app}}]
pools: {{app: {{servers: ["127.0.0.1:9001"], health_check: off, keep_alive: off, max_inflight: 1{queue}}}}}
"""


class FailsOnce(dict[Server, ServerRuntime]):
    """A defect that the first who looks for its server meets."""

    def __getitem__(self, server: Server) -> ServerRuntime:
        if not hasattr(self, "has_failed"):
            self.has_failed = True
            raise ZeroDivisionError("a defect")
        return super().__getitem__(server)


@contextlib.contextmanager
def one_defect(lb: FakeLb) -> Iterator[None]:
    """Who gets a slot next fails."""
    lb.pool.servers = FailsOnce(lb.pool.servers)
    yield
    assert lb.services.row[DEFECTS] == 1
    lb.services.row[DEFECTS] = 0  # it was expected


def ask(lb: FakeLb, mode: str) -> Peer:
    client = lb.connect()
    if mode == "http":
        client.send(post())
    return client


def end(lb: FakeLb, mode: str, client: Peer, server: Peer) -> None:
    if mode == "http":
        server.send(ok())
    client.fin()
    server.fin()
    lb.loop.run()


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_a_defect_of_who_is_granted_a_slot_costs_nobody_else(mode: str) -> None:
    """The pool tells it in the middle of its books, from inside the end of another request."""
    with FakeLb(config(mode)) as lb:
        first = ask(lb, mode)
        server = lb.accept()
        defective, next_one = ask(lb, mode), ask(lb, mode)
        assert lb.pool.n_queued == 2
        with one_defect(lb):
            end(lb, mode, first, server)
        assert sorted(lb.ends) == ["internal_error", "ok"]
        assert lb.pool.n_queued == 0 and lb.inflight == 1
        answer = defective.got()
        assert answer.startswith(b"HTTP/1.1 500 ") if mode == "http" else defective.transport.is_lost and not answer
        end(lb, mode, next_one, lb.accept())
        assert sorted(lb.ends) == ["internal_error", "ok", "ok"]


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_a_wait_is_counted_and_logged_when_it_brings_a_slot(mode: str) -> None:
    with FakeLb(config(mode)) as lb:
        first = ask(lb, mode)
        server = lb.accept()
        second = ask(lb, mode)
        lb.advance(0.25)
        end(lb, mode, first, server)
        end(lb, mode, second, lb.accept())
        waits = [entry["queue_ms"] for entry in lb.log]
        assert waits[0] == 0 and 240 < waits[1] < 260
        buckets = lb.pool.row[WAITED : WAITED + len(QUEUE_BUCKETS) + 1]
        assert sum(buckets) == 1, "who did not wait is not counted"


@pytest.mark.parametrize(
    ("queue", "word"), [(", queue: {timeout: 1s}", "queue_timeout"), (", queue: {size: 0}", "queue_full")]
)
@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_who_gets_no_slot_is_told_why(mode: str, queue: str, word: str) -> None:
    with FakeLb(config(mode, queue)) as lb:
        ask(lb, mode)
        lb.accept()
        ask(lb, mode)
        lb.advance(1.5)
        assert lb.ends == [word] and lb.of_listener("rejected_total", word) == 1
        assert lb.inflight == 1


def test_who_waited_in_vain_is_told_for_how_long_and_where() -> None:
    with FakeLb(config("http", ", queue: {timeout: 1s}")) as lb:
        ask(lb, "http")
        lb.accept()
        late = ask(lb, "http")
        lb.advance(1.5)
        assert re.search(
            rb'"detail": "It waited for 1[.0-9]* s in the queue of pool app\. No server became', late.got()
        )


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_no_usable_server_is_told_at_once(mode: str) -> None:
    with FakeLb(config(mode)) as lb:
        for runtime in lb.runtimes:
            lb.pool.pool.server_refused(runtime.server, 1.0)
        ask(lb, mode)
        assert lb.ends == ["no_server"] and lb.of_listener("rejected_total", "no_server") == 1


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_a_client_that_leaves_loses_its_place_and_its_wait_is_logged(mode: str) -> None:
    with FakeLb(config(mode)) as lb:
        ask(lb, mode)
        lb.accept()
        waiting = ask(lb, mode)
        lb.advance(0.5)
        waiting.reset()
        lb.loop.run()
        assert lb.pool.n_queued == 0 and lb.inflight == 1
        assert lb.ends == ["client_abort"] and 490 < lb.log[0]["queue_ms"] < 510


FAIR = ", queue: {fair_by: 'header:X-Tenant', size: 3, order: fifo}"


def asks_as(lb: FakeLb, *fields: str) -> Peer:
    client = lb.connect()
    client.send(post(b"hello", *fields))
    return client


def order_of(lb: FakeLb, n: int, name: bytes) -> list[bytes]:
    """What stands in this field of the next requests that servers get, each of which is answered."""
    found = []
    for _ in range(n):
        server = lb.accept()
        found += [line.partition(b": ")[2] for line in server.got().split(b"\r\n") if line.lower().startswith(name)]
        server.send(ok())
        server.fin()
        lb.loop.run()
    return found


def test_tenants_have_turns_and_a_flood_makes_room() -> None:
    with FakeLb(config("http", FAIR)) as lb:
        flood = [asks_as(lb, "X-Tenant: big") for _ in range(4)]
        light = asks_as(lb, "X-Tenant: small")
        answer = flood[3].got()
        assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in answer
        assert lb.ends == ["queue_full"] and lb.pool.n_queued == 3
        assert order_of(lb, 4, b"x-tenant") == [b"big", b"big", b"small", b"big"]
        assert light.got().startswith(b"HTTP/1.1 200 ")


def test_a_pipelined_request_behind_one_that_was_pushed_out_waits_in_its_turn() -> None:
    """It begins in the middle of the other's enqueueing."""
    with FakeLb(config("http", FAIR)) as lb:
        for _ in range(3):
            asks_as(lb, "X-Tenant: big")
        piper = lb.connect()
        piper.send(post(b"hello", "X-Tenant: big") + post(b"hello", "X-Tenant: other"))
        asks_as(lb, "X-Tenant: small")
        assert piper.got().startswith(b"HTTP/1.1 503 ")
        assert lb.pool.n_queued == 3


@pytest.mark.parametrize(("trusted", "first"), [("127.0.0.0/8", b"high"), ("192.0.2.0/24", b"low")])
def test_the_class_is_believed_of_trusted_peers(trusted: str, first: bytes) -> None:
    text = config("http", ", queue: {priority: {}}") + f"trusted_proxies: ['{trusted}']\n"
    with FakeLb(text) as lb:
        for word in ("now", "low", "high"):
            client = lb.connect(("127.0.0.1", 1234))
            client.send(post(b"hello", f"X-Priority: {word}"))
        assert order_of(lb, 2, b"x-priority") == [b"now", first]


def test_connections_have_turns_by_address() -> None:
    with FakeLb(config("tcp", ", queue: {fair_by: client_ip, size: 2}")) as lb:
        for _ in range(3):
            lb.connect(("192.0.2.1", 1))
        assert lb.pool.n_queued == 2
        lb.connect(("192.0.2.2", 1))
        assert lb.pool.n_queued == 2 and lb.ends == ["queue_full"]


def test_clients_have_turns_by_the_name_of_their_api_key(tmp_path: Path) -> None:
    keys = {"big": new_key(), "big2": new_key(), "small": new_key()}
    file = tmp_path / "keys.txt"
    file.write_text("".join(f"{name.rstrip('2')} {hash_of(key)}\n" for name, key in keys.items()))
    text = config("http", ", queue: {fair_by: api_key, size: 3, order: fifo}") + f"api_keys: {{file: {file}}}\n"
    with FakeLb(text) as lb:
        for name in ("big", "big", "big2", "small"):
            asks_as(lb, f"X-API-Key: {keys[name]}", f"X-Was: {name}")
        assert order_of(lb, 4, b"x-was") == [b"big", b"big", b"small", b"big2"]
