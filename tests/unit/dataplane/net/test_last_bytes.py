"""What the end of a connection still has to say, and how it is made to say it."""

from __future__ import annotations

import os
import socket

import pytest

from lbproxy.dataplane.net.last_bytes import read_what_is_left, reset_on_close


class FakeSocket:
    def __init__(self, family: int, error: Exception | None = None) -> None:
        self.family = family
        self.error = error
        self.options: list[tuple[int, int, bytes]] = []

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self.options.append((level, option, value))
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("family", "is_reset"), [(socket.AF_INET, True), (socket.AF_INET6, True), (socket.AF_UNIX, False)]
)
def test_the_close_resets_where_there_are_resets(family: int, is_reset: bool) -> None:
    sock = FakeSocket(family)
    reset_on_close(sock)
    on_for_no_time = (socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert sock.options == ([on_for_no_time] if is_reset else [])


@pytest.mark.parametrize("error", [OSError("it was reset"), ValueError("it is closed")])
def test_who_is_gone_needs_no_reset(error: Exception) -> None:
    sock = FakeSocket(socket.AF_INET, error)
    reset_on_close(sock)
    assert len(sock.options) == 1


class Closed:
    def fileno(self) -> int:
        return -1


@pytest.mark.parametrize("sock", [None, Closed()])
def test_nothing_is_left_of_what_has_no_descriptor(sock: object) -> None:
    received: list[bytes] = []
    read_what_is_left(sock, 10, received.append, lambda: True)
    assert received == []


def test_what_is_no_socket_ends_the_reading() -> None:
    """As does an error of the kernel; the descriptor that it was given stays open, its copy does not."""
    read, write = os.pipe()

    class Pipe:
        def fileno(self) -> int:
            return read

    before = set(os.listdir("/proc/self/fd"))
    received: list[bytes] = []
    read_what_is_left(Pipe(), 10, received.append, lambda: True)
    assert received == [] and set(os.listdir("/proc/self/fd")) == before
    os.close(read)
    os.close(write)
