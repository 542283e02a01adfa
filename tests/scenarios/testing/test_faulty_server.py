"""Each fault as a client sees it that is no proxy."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator

import pytest

from lbproxy.testing import Answer, FaultyServer


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as made:
        yield made


def connect(server: FaultyServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.address, timeout=60)


def ask(server: FaultyServer, path: str = "/", *, body: str | None = None, **options: bool) -> tuple[int, bytes]:
    connection = connect(server)
    try:
        chunks = iter([body.encode()]) if body is not None and options else body
        connection.request(
            "GET" if body is None else "POST",
            path,
            chunks,
            encode_chunked=bool(options),
            headers=({"Transfer-Encoding": "chunked"} if options else {}),
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_script_comes_first_and_then_the_default(server: FaultyServer) -> None:
    server.script(Answer(503, "busy"), Answer(404))
    server.default = Answer(201)
    assert [ask(server) for _ in range(4)] == [(503, b"busy"), (404, b"ok\n"), (201, b"ok\n"), (201, b"ok\n")]
    assert server.connections == 4


def test_a_path_of_its_own_takes_nothing_from_the_script() -> None:
    with FaultyServer(Answer(500), paths={"/health": Answer(204)}) as server:
        assert [ask(server, path)[0] for path in ("/health?x", "/", "/health", "/")] == [204, 500, 204, 200]
        assert (server.count("/health"), server.count()) == (2, 4)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_what_it_was_asked(server: FaultyServer, is_chunked: bool) -> None:
    ask(server, "/a?b", body="hello", **({"is_chunked": True} if is_chunked else {}))
    [request] = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/a?b", b"hello")
    assert request.headers["host"] == server.address


def test_a_connection_is_kept(server: FaultyServer) -> None:
    connection = connect(server)
    for _ in range(3):
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok\n"
    connection.close()
    assert (server.connections, server.count()) == (1, 3)


def test_a_delay(server: FaultyServer) -> None:
    server.script(Answer(delay=0.2))
    began = time.monotonic()
    assert ask(server) == (200, b"ok\n")
    assert time.monotonic() - began >= 0.2


def test_a_reset_in_place_of_an_answer(server: FaultyServer) -> None:
    server.script(Answer(fault="reset"))
    with pytest.raises(ConnectionResetError):
        ask(server)


def test_a_close_in_place_of_an_answer(server: FaultyServer) -> None:
    server.script(Answer(fault="close"))
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server)


def test_half_an_answer(server: FaultyServer) -> None:
    server.script(Answer(body=b"x" * 1000, fault="half"))
    connection = connect(server)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.status == 200
    with pytest.raises(ConnectionResetError):
        answer.read()
    connection.close()


def test_no_answer(server: FaultyServer) -> None:
    server.script(Answer(fault="hang"))
    connection = http.client.HTTPConnection(server.address, timeout=0.3)
    connection.request("GET", "/")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()


def test_stopped_it_refuses_and_started_it_has_its_port(server: FaultyServer) -> None:
    kept, address = connect(server), server.address
    kept.request("GET", "/")
    kept.getresponse().read()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(server)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", int(address.rpartition(":")[2])))
    server.start()
    assert (server.address, ask(server)) == (address, (200, b"ok\n"))
    kept.close()
