"""The load's requests are sound, each on a stream of its own, and what comes back is counted."""

from __future__ import annotations

import socket
from typing import cast

import pytest

from benchmarks.h2.cases import CASES
from benchmarks.h2.generator import Connection, Requests
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.h2_ends import RecordingEnd


def play(case: str, count: int, status: int = 200) -> tuple[Connection, RecordingEnd]:
    """A server answers so many requests."""
    times = iter(range(1_000_000))
    client = Connection(cast(socket.socket, None), Requests(CASES[case], 7), lambda: float(next(times)))
    server = RecordingEnd(True, OwnSettings())
    n_ended = 0
    for number in range(count):
        client.ask()
        server.received(bytes(client.out), 0.0)
        client.out.clear()
        server.send_answer(1 + 2 * number, status, b"content-type: text/plain\r\n", b"", False)
        server.send_data(1 + 2 * number, b"ok", True)
        n_ended += client.received(server.take_output())
    assert n_ended == count and not client.begun
    return client, server


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_what_a_server_takes(case: str) -> None:
    client, server = play(case, 20)
    assert client.errors == {} and len(client.latencies_s) == 20 and client.n_bytes == 40
    assert [entry[0] for entry in server.seen if entry[0] in ("malformed", "failed", "reset")] == []
    assert {head.path.decode() for head in server.heads} == {CASES[case].path}


def test_what_is_new_is_new_each_time() -> None:
    _, server = play("grpc_1x32_unique", 50)
    lines = [head.lines for head in server.heads]
    assert len(set(lines)) == 50 and all(b"grpc-timeout: " in one and b"traceparent: 00-" in one for one in lines)
    _, server = play("grpc_1x32", 50)
    assert len({head.lines for head in server.heads}) == 1


def test_a_request_that_was_due_earlier_has_taken_longer() -> None:
    client = Connection(cast(socket.socket, None), Requests(CASES["grpc_1x32"], 7), lambda: 9.0)
    server = RecordingEnd(True, OwnSettings())
    client.ask(due=2.0)
    client.ask()
    server.received(bytes(client.out), 0.0)
    for number in (1, 3):
        server.send_answer(number, 200, b"grpc-status: 0\r\n", b"", True)
    assert client.received(server.take_output()) == 2 and client.latencies_s == [7.0, 0.0]


def test_answers_that_are_none_are_errors() -> None:
    client, _ = play("h2c_h1_1x32", 3, status=404)
    assert client.errors == {"status": 3}


def test_a_body_waits_for_the_connections_window() -> None:
    client = Connection(cast(socket.socket, None), Requests(CASES["h2c_h1_1x32"], 7), lambda: 0.0)
    for _ in range(3000):  # of 31 octets, where 65,535 are allowed
        client.ask()
    assert len(client.begun) == 65_535 // 31
    client.received(b"\x00\x00\x04\x08\x00" + bytes(4) + (31 * 10).to_bytes(4, "big"))
    assert len(client.begun) == (65_535 + 310) // 31
