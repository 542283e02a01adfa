"""The command line's client against real sockets: TCP, unix, nobody there, too slow, not HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lbproxy import _client
from lbproxy._client import AdminError
from lbproxy.address import Address
from tests.support.origin import refusing_port
from tests.support.waiting import PATIENCE_S

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n"


@contextmanager
def answering(sock: socket.socket, answer: bytes | None) -> Iterator[list[bytes]]:
    """Accepts one connection, keeps what it said, answers (None: never) and closes."""
    heads: list[bytes] = []
    done = threading.Event()

    def serve() -> None:
        connection, _ = sock.accept()
        with connection:
            heads.append(connection.recv(65536))
            if answer is None:
                done.wait(PATIENCE_S)
            else:
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield heads
    finally:
        done.set()
        thread.join()
        sock.close()


def tcp() -> tuple[socket.socket, Address]:
    sock = socket.create_server(("127.0.0.1", 0))
    return sock, Address("127.0.0.1", sock.getsockname()[1])


def test_over_tcp_with_a_token() -> None:
    sock, address = tcp()
    with answering(sock, OK) as heads:
        answer = _client.get(address, "/readyz", token="s3cret")
    assert (answer.status, answer.text) == (200, "ready\n")
    assert heads[0].startswith(b"GET /readyz HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer s3cret\r\n" in heads[0]


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_over_a_unix_socket(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock") if kind == "file" else f"@{tmp_path.name}-admin"
    address = Address("", 0, path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(address.sock_path)
    sock.listen()
    with answering(sock, OK) as heads:
        assert _client.get(address, "/healthz").status == 200
    assert b"Authorization" not in heads[0]


def test_nobody_listens(tmp_path: Path) -> None:
    with refusing_port() as port:
        for nobody in (Address("127.0.0.1", port), Address("", 0, str(tmp_path / "none.sock"))):
            with pytest.raises(AdminError, match=f"nothing listens on {nobody}"):
                _client.get(nobody, "/healthz")


def test_too_slow() -> None:
    sock, address = tcp()
    with answering(sock, None), pytest.raises(AdminError, match=r"did not answer within 0\.1 s"):
        _client.get(address, "/healthz", timeout_s=0.1)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b""])
def test_not_http(answer: bytes) -> None:
    sock, address = tcp()
    with answering(sock, answer), pytest.raises(AdminError, match=r"does not speak HTTP|cannot talk to"):
        _client.get(address, "/healthz")


STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text: str) -> bytes:
    return f"{len(text.encode()):x}\r\n{text}\r\n".encode()


def events_of(answer: bytes | None, timeout_s: float = PATIENCE_S) -> Iterator[tuple[str, object]]:
    """The messages in an answer to a request for events."""
    with socket.create_server(("127.0.0.1", 0)) as sock, answering(sock, answer) as heads:
        yield from _client.events(Address("127.0.0.1", sock.getsockname()[1]), token="s3cret", timeout_s=timeout_s)
        assert b"GET /api/v1/events HTTP/1.1\r\n" in heads[0]
        assert b"Authorization: Bearer s3cret\r\n" in heads[0]


def test_events_are_read_one_by_one_until_the_stream_ends() -> None:
    text = 'retry: 2000\n\nid: 1\nevent: a\ndata: {"x": "\u00e9"}\n\n: still here\n\nevent: b\r\ndata: 1\r\n\r\n'
    half = len(text) // 2
    answer = STREAM + chunk(text[:half]) + chunk(text[half:]) + b"0\r\n\r\n"
    assert list(events_of(answer)) == [("a", {"x": "\u00e9"}), ("b", 1)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (STREAM + chunk('event: a\ndata: {"x": ')[:-9], "broke off in the middle"),
        (STREAM + chunk("data: {\n"), "does not speak HTTP"),
        (b"SSH-2.0\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404 to GET /api/v1/events"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "--token"),
        (b'HTTP/1.1 503 X\r\nContent-Length: 24\r\n\r\n{"detail": "32 readers"}', "32 readers"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", "it answered 503"),
    ],
)
def test_a_stream_that_cannot_be_read_is_explained(answer: bytes, words: str) -> None:
    with pytest.raises(AdminError, match=words):
        list(events_of(answer))


def test_a_stream_that_says_nothing_is_not_waited_for_without_end() -> None:
    with pytest.raises(AdminError, match=r"did not answer within 0\.2 s"):
        list(events_of(None, timeout_s=0.2))
