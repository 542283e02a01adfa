"""Both ends of a connection, joined."""

from __future__ import annotations

from lbproxy.protocol.h2.codes import CANCEL
from tests.support.h2_ends import RecordingEnd, shake


def joined() -> tuple[RecordingEnd, RecordingEnd]:
    """A client's and a server's end that know each other's settings."""
    client, server = RecordingEnd(False), RecordingEnd(True)
    shake(client, server)
    client.seen.clear()
    server.seen.clear()
    return client, server


def test_a_request_and_its_answer() -> None:
    client, server = joined()
    stream = client.open_stream()
    client.send_request(
        stream, b"POST", b"http", b"a:80", b"/p?q", b"Content-Type: a/b\r\n", b"content-length: 5\r\n", False
    )
    assert client.send_data(stream, b"hello", True) == 5
    shake(client, server)
    assert server.seen == [
        ("head", 1, b"POST", b"/p?q", b"content-type: a/b\r\n", False),
        ("data", 1, b"hello", True),
    ]
    head = server.heads[0]
    assert (head.scheme, head.authority, head.content_length) == (b"http", b"a:80", 5)
    server.send_answer(stream, 100, b"", b"", False)
    server.send_answer(stream, 200, b"Server: x\r\n", b"", False)
    server.send_data(stream, memoryview(b"x" * 20_000), False)
    server.send_trailers(stream, b"Grpc-Status: 0\r\n")
    shake(client, server)
    assert client.seen == [
        ("head", 1, 100, b"", False),
        ("head", 1, 200, b"server: x\r\n", False),
        ("data", 1, b"x" * 16_384, False),
        ("data", 1, b"x" * 3_616, False),
        ("trailers", 1, ((b"grpc-status", b"0"),)),
    ]
    assert not client.n_streams
    assert not server.n_streams


def test_a_reset_is_told_and_the_rest_ignored() -> None:
    client, server = joined()
    stream = client.open_stream()
    client.send_request(stream, b"POST", b"http", b"a", b"/", b"", b"", False)
    shake(client, server)
    client.send_data(stream, b"late", False)
    server.reset(stream, CANCEL)
    shake(client, server)
    assert client.seen == [("reset", 1, CANCEL)]
    assert server.words() == ["head"]
    assert client.send_data(stream, b"later", True) == 5
    assert not client.take_output()
