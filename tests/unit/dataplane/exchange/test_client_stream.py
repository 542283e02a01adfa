"""The narrow interface between an exchange and whatever speaks to the client; and two streams on one connection."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

from lbproxy.dataplane.client import answering, connection, http1, timed
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.exchange import attempt, attempt_books, client_stream, exchange, kernel_path, tunnel
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.dataplane.exchange.forwarding import kept_request_id
from lbproxy.dataplane.exchange.placing import Place
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field, Fields
from tests.support.fake_transport import FakeLb, FakeTransport, ok

# --- the interface --------------------------------------------------------------------------------------------------


def source(module: ModuleType) -> str:
    """Its Python, also where it is compiled: that is beside it."""
    return Path(str(module.__file__)).with_name(f"{module.__name__.rpartition('.')[2]}.py").read_text()


def class_of(module: ModuleType, name: str) -> ast.ClassDef:
    [found] = [node for node in ast.parse(source(module)).body if isinstance(node, ast.ClassDef) and node.name == name]
    return found


def methods(definition: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {node.name: node for node in definition.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def is_left_open(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return ast.unparse(method.body[-1]) == "raise NotImplementedError"


INTERFACE = class_of(client_stream, "ClientStream")
OWN = {
    name: method
    for module, part in (
        (connection, "ClientConnection"),
        (timed, "TimedConnection"),
        (answering, "AnsweringConnection"),
        (http1, "Http1Connection"),
    )
    for name, method in methods(class_of(module, part)).items()
}
METHODS = {name: method for name, method in methods(INTERFACE).items() if name[0] != "_"}
OPEN = {name: method for name, method in METHODS.items() if is_left_open(method)}
ATTRIBUTES = {ast.unparse(node.target) for node in INTERFACE.body if isinstance(node, ast.AnnAssign)}


def test_the_interface_is_seen() -> None:
    assert len(OPEN) > 8 and len(METHODS) > len(OPEN) and len(ATTRIBUTES) > 3
    [slots] = [node.value for node in INTERFACE.body if isinstance(node, ast.Assign)]
    assert set(ast.literal_eval(slots)) == ATTRIBUTES
    assert issubclass(Http1Connection, ClientStream)


@pytest.mark.parametrize("name", OPEN)
def test_http_1_takes_and_gives_the_same_types(name: str) -> None:
    own, wanted = OWN[name], METHODS[name]
    assert ast.unparse(own.args) == ast.unparse(wanted.args)
    assert own.returns is not None and wanted.returns is not None
    assert ast.unparse(own.returns) == ast.unparse(wanted.returns)
    assert type(own) is type(wanted) and not own.decorator_list, "a method of the object, not of the class"
    assert not is_left_open(own)


def test_an_exchange_asks_for_nothing_else() -> None:
    """So that another version of HTTP can stand on the client's side."""
    used = {
        node.attr
        for module in (exchange, attempt, attempt_books, kernel_path, tunnel)
        for node in ast.walk(ast.parse(source(module)))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] == "side"
    }
    assert used
    assert used <= set(METHODS) | ATTRIBUTES
    called = {
        node.attr
        for node in ast.walk(INTERFACE)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
    }
    assert set(METHODS) <= used | called, "a method that nobody calls"


# --- two streams on one connection ----------------------------------------------------------------------------------

CONFIG = """
access_log: {path: /dev/null}
trusted_proxies: [192.0.2.0/24]
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools:
  app:
    servers: ["127.0.0.1:9001", "127.0.0.1:9002"]
    strategy: round_robin
    health_check: off
    retry: {attempts: 0}
    max_inflight: 1
"""
PROXY = ("192.0.2.7", 40000)


class Stream(ClientStream):
    """One of several streams of a client's connection. `heard` is what it was told to send, in that order."""

    def __init__(self, lb: FakeLb, facts: ClientFacts, transport: FakeTransport) -> None:
        self.services = lb.services
        self.facts = facts
        self.transport = transport
        self.bound = None
        self.heard: list[object] = []
        self.exchange: Exchange

    def begin(self, user: str, request_id: str, body: bytes = b"", *, is_done: bool = True) -> None:
        """A request with this stream as its client, from a user behind the trusted peer."""
        raw = (
            f"POST /{request_id} HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {user}\r\nX-Request-ID: {request_id}\r\n"
            f"Content-Length: {len(body) if is_done else len(body) + 1}\r\n\r\n"
        )
        facts = self.facts
        prepared = prepare(
            facts.listener,
            raw.encode(),
            is_trusted=facts.is_trusted,
            log_format=facts.listener.log_format,
            local_host=facts.local_host,
        )
        known = prepared.head.forwarding
        identity = kept_request_id(known), b"X-Request-ID: %b\r\n" % request_id.encode()
        self.exchange = Exchange(self, prepared, identity, facts.address_behind(known), self.services.clock())
        self.exchange.start(body, is_done=is_done)

    # --- the port ---------------------------------------------------------------------------------------------------

    def respond(
        self, request: Underway, head: ResponseHead, body: bytes, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        assert request is self.exchange
        self.heard.append((head.status, body, is_done))

    def send_body(self, request: Underway, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        assert request is self.exchange
        self.heard.append((data, is_done))

    def send_interim(self, head: ResponseHead | None) -> None:
        self.heard.append(head.status if head is not None else 100)

    def answer(self, request: Underway, status: int, fields: Fields, body: bytes, *, closes: bool) -> None:
        assert request is self.exchange
        self.heard.append((status, dict(fields)[b"Content-Type"]))

    def cut(self) -> None:
        self.heard.append("cut")

    def pause_body(self) -> None:
        self.heard.append("pause")

    def resume_body(self) -> None:
        self.heard.append("resume")

    def raw_sink(self) -> asyncio.Transport | None:
        return None

    def raw_source(self) -> asyncio.Transport | None:
        return None


class Two(FakeLb):
    """A connection of a trusted proxy, with two streams."""

    def __init__(self, config: str = CONFIG) -> None:
        super().__init__(config)
        self.connection = FakeTransport(self.loop, asyncio.Protocol(), PROXY, ("127.0.0.1", 5000))
        self.facts = ClientFacts(self.listener.runtime)
        self.facts.connected(self.connection)
        self.one, self.other = (Stream(self, self.facts, self.connection) for _ in range(2))

    def check(self) -> None:
        super().check()
        assert self.connection.written == [] and self.connection.calls == [], "an exchange knows streams only"
        self.connection.sock.close()


@pytest.fixture
def lb() -> Iterator[Two]:
    with Two() as made:
        yield made


def test_answers_in_the_other_order(lb: Two) -> None:
    lb.one.begin("198.51.100.1", "a")
    lb.other.begin("203.0.113.2", "b")
    first, second = lb.accept(), lb.accept()
    for server, user, request_id in ((first, b"198.51.100.1", b"a"), (second, b"203.0.113.2", b"b")):
        got = server.got()
        assert got.startswith(b"POST /" + request_id) and b"X-Forwarded-For: " + user + b", 192.0.2.7\r\n" in got
        assert got.endswith(b"X-Request-ID: " + request_id + b"\r\n\r\n")
    answer = ok(b"hello")
    first.send(answer[:-2])
    second.send(answer)
    first.send(answer[-2:])
    assert lb.one.heard == [(200, b"hel", False), (b"lo", True)]
    assert lb.other.heard == [(200, b"hello", True)]
    assert [(entry["client"], entry["request_id"], entry["end"]) for entry in lb.log] == [
        ("203.0.113.2", "b", "ok"),
        ("198.51.100.1", "a", "ok"),
    ]


def test_one_is_given_up_by_its_client_and_the_other_goes_on(lb: Two) -> None:
    lb.one.begin("198.51.100.1", "a")
    lb.other.begin("203.0.113.2", "b")
    first, second = lb.accept(), lb.accept()
    lb.one.exchange.client_left()  # as after RST_STREAM
    assert first.saw_reset and second.is_open
    second.send(ok(b"whole"))
    assert (lb.one.heard, lb.other.heard) == ([], [(200, b"whole", True)])
    assert lb.ends == ["client_abort", "ok"]


def test_one_is_cut_where_its_server_dies_and_the_other_goes_on(lb: Two) -> None:
    lb.one.begin("198.51.100.1", "a")
    lb.other.begin("203.0.113.2", "b")
    first, second = lb.accept(), lb.accept()
    for server in (first, second):
        server.send(ok(b"hello")[:-2])
    first.reset()
    second.send(b"lo")
    assert lb.one.heard == [(200, b"hel", False), "cut"]
    assert lb.other.heard == [(200, b"hel", False), (b"lo", True)]
    assert lb.ends == ["truncated_body", "ok"]


def test_one_gets_an_error_and_the_other_its_answer(lb: Two) -> None:
    lb.one.begin("198.51.100.1", "a")
    lb.other.begin("203.0.113.2", "b")
    first, second = lb.accept(), lb.accept()
    first.reset()
    second.send(ok(b"whole"))
    assert lb.one.heard == [(502, b"application/problem+json")]
    assert lb.other.heard == [(200, b"whole", True)]


def test_what_one_does_not_take_holds_back_only_its_own_server(lb: Two) -> None:
    lb.one.begin("198.51.100.1", "a")
    lb.other.begin("203.0.113.2", "b")
    first, second = lb.accept(), lb.accept()
    for server in (first, second):
        server.send(ok(b"hello")[:-2])
    lb.one.exchange.client_blocked()
    assert first.transport.is_paused and not second.transport.is_paused
    for server in (first, second):
        server.send(b"lo")
    assert lb.one.heard == [(200, b"hel", False)] and lb.other.heard[1:] == [(b"lo", True)]
    lb.one.exchange.client_unblocked()
    lb.loop.run()
    assert lb.one.heard[1:] == [(b"lo", True)]


def test_a_server_that_takes_no_more_holds_back_only_one_body(lb: Two) -> None:
    lb.one.begin("198.51.100.1", "a", b"some", is_done=False)
    lb.other.begin("203.0.113.2", "b", b"some", is_done=False)
    first, second = lb.accept(), lb.accept()
    first.stop_reading()
    assert (lb.one.heard, lb.other.heard) == (["pause"], [])
    for stream in (lb.one, lb.other):
        stream.exchange.request_body(b"!", is_done=True)
    first.read_again()
    assert (lb.one.heard, lb.other.heard) == (["pause", "resume"], [])
    for server in (first, second):
        assert server.everything.endswith(b"\r\n\r\nsome!")
        server.send(ok())


def test_each_waits_with_what_is_known_of_its_own_request(lb: Two) -> None:
    """All slots are taken: a strategy that is asked later sees the request that it is asked for."""
    busy = [Stream(lb, lb.facts, lb.connection) for _ in range(2)]
    for stream in busy:
        stream.begin("198.51.100.9", "busy")
    servers = [lb.accept(), lb.accept()]
    lb.one.begin("198.51.100.1", "a")
    lb.other.begin("203.0.113.2", "b")
    contexts = [cast(Place, stream.exchange._place).ctx for stream in (lb.one, lb.other)]
    assert [ctx.client_ip for ctx in contexts] == ["198.51.100.1", "203.0.113.2"]
    assert [ctx.request.path for ctx in contexts if ctx.request is not None] == ["/a", "/b"]
    for server in servers:
        server.send(ok(b"free"))
    assert [server.everything.count(b"POST /") for server in servers] == [2, 2]
    for server in reversed(servers):
        server.send(ok(b"then"))
    assert lb.one.heard == lb.other.heard == [(200, b"then", True)]
