"""Unit tests open no socket and never sleep: here both fail at once, wherever the code under test does it.

Unix socket pairs stay possible, because every event loop makes one to wake itself.
"""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

_MAKE_SOCKET = socket.socket.__init__
_ASYNCIO_SLEEP = asyncio.sleep


def _make_socket(
    self: socket.socket, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
) -> None:
    if fileno is None and family != socket.AF_UNIX:
        pytest.fail("a unit test opened a socket: pass in what it should talk to, or make it a scenario")
    _MAKE_SOCKET(self, family, type, proto, fileno)


def _refuse(self: socket.socket, *args: object) -> None:
    pytest.fail("a unit test used a socket: pass in what it should talk to, or make it a scenario")


def _sleep(seconds: float) -> None:
    pytest.fail(f"a unit test slept {seconds} s: pass in a clock, or make it a scenario")


async def _asyncio_sleep(delay: float, result: object = None) -> object:
    if delay > 0:
        pytest.fail(f"a unit test slept {delay} s: pass in a clock, or make it a scenario")
    return await _ASYNCIO_SLEEP(0, result)


@pytest.fixture(autouse=True)
def _pure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "__init__", _make_socket)
    for name in ("connect", "connect_ex", "bind", "listen"):
        monkeypatch.setattr(socket.socket, name, _refuse)
    monkeypatch.setattr(time, "sleep", _sleep)
    monkeypatch.setattr(asyncio, "sleep", _asyncio_sleep)
