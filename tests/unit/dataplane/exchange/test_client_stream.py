"""The narrow interface between an exchange and whatever speaks to the client; and two streams on one connection."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import cast

import pytest

from lbproxy.dataplane.client import answering, connection, http1, timed
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.exchange import client_stream
from lbproxy.dataplane.exchange.client_stream import ClientStream, SharingClientStream
from lbproxy.dataplane.exchange.placing import Place
from tests.support.fake_transport import FakeLb, body_of, ok
from tests.support.multiplexed import WINDOW, ClientConnection
from tests.unit.dataplane.exchange.interface import Port, uses_of

# --- the interface --------------------------------------------------------------------------------------------------

PORT = Port(
    (client_stream, "ClientStream"),
    (connection, "ClientConnection"),
    (timed, "TimedConnection"),
    (answering, "AnsweringConnection"),
    (http1, "Http1Connection"),
)
ATTRIBUTES = {ast.unparse(node.target) for node in PORT.definition.body if isinstance(node, ast.AnnAssign)}


def test_the_interface_is_seen() -> None:
    assert len(PORT.open) > 8 and len(PORT.methods) > len(PORT.open) and len(ATTRIBUTES) > 3
    [slots] = [node.value for node in PORT.definition.body if isinstance(node, ast.Assign)]
    assert set(ast.literal_eval(slots)) == ATTRIBUTES
    assert issubclass(Http1Connection, ClientStream)


def test_a_stream_need_not_be_a_connection() -> None:
    """Nor anything that receives bytes, or makes way for others."""
    assert ClientStream.__mro__[1:] == (object,) and SharingClientStream.__mro__[1:] == (ClientStream, object)


@pytest.mark.parametrize("name", PORT.open)
def test_http_1_takes_and_gives_the_same_types(name: str) -> None:
    PORT.check_same_types(name)


def test_an_exchange_asks_for_nothing_else() -> None:
    """So that another version of HTTP can stand on the client's side."""
    used = uses_of("side")
    assert used
    assert used <= set(PORT.methods) | ATTRIBUTES
    assert set(PORT.methods) <= used | PORT.called_by_itself, "a method that nobody calls"


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


class Two(FakeLb):
    """A connection of a trusted proxy, with two streams."""

    def __init__(self, config: str = CONFIG) -> None:
        super().__init__(config)
        self.connection = ClientConnection(self)
        self.one, self.other = (self.connection.stream() for _ in range(2))

    def check(self) -> None:
        super().check()
        self.connection.check()


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
        assert server.everything.endswith(b"\r\n\r\n4\r\nsome\r\n1\r\n!\r\n0\r\n\r\n")
        server.send(ok())


def test_each_waits_with_what_is_known_of_its_own_request(lb: Two) -> None:
    """All slots are taken: a strategy that is asked later sees the request that it is asked for."""
    busy = [lb.connection.stream() for _ in range(2)]
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


def test_pieces_of_both_come_and_go_as_they_like(lb: Two) -> None:
    """Heads, bodies and answers of two streams between each other: each server hears its own."""
    lb.one.begin("198.51.100.1", "a", is_done=False)
    lb.one.data(b"1")
    lb.other.begin("203.0.113.2", "b", is_done=False)
    first, second = lb.accept(), lb.accept()
    lb.other.data(b"2")
    lb.one.data(b"11")
    second.send(ok(b"early")[:-1])
    lb.other.data(b"22", is_done=True)
    lb.one.data(b"111", is_done=True)
    first.send(ok(b"one"))
    second.send(b"y")
    assert body_of(first.everything) == b"1\r\n1\r\n2\r\n11\r\n3\r\n111\r\n0\r\n\r\n"
    assert body_of(second.everything) == b"1\r\n2\r\n2\r\n22\r\n0\r\n\r\n"
    assert lb.connection.frames == [
        (2, (200, b"earl", False)),
        (1, (200, b"one", True)),
        (2, (b"y", True)),
    ]


def test_each_has_a_window_of_its_own(lb: Two) -> None:
    """What one server does not take fills the window of its stream, and the other stream goes on for ever."""
    lb.one.begin("198.51.100.1", "a", is_done=False)
    lb.other.begin("203.0.113.2", "b", is_done=False)
    first, second = lb.accept(), lb.accept()
    first.stop_reading()
    lb.one.data(bytes(WINDOW))
    assert (lb.one.window, len(lb.one.unread)) == (0, 1)
    for _ in range(100):
        lb.other.data(bytes(WINDOW))
    assert lb.other.window == WINDOW and body_of(second.everything).count(b"10\r\n") == 100
    assert body_of(first.everything) == b""
    first.read_again()
    assert lb.one.window == WINDOW and body_of(first.everything).startswith(b"10\r\n")
    lb.one.reset()
    lb.other.data(b"", is_done=True)
    lb.loop.run()
    assert first.saw_reset and second.is_open
    second.send(ok(b"all"))
    assert lb.other.heard == [(200, b"all", True)] and lb.ends == ["client_abort", "ok"]
