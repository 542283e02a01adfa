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
                done.wait(10)
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
    sock, address = tcp()
    sock.close()
    for nobody in (address, Address("", 0, str(tmp_path / "none.sock"))):
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
