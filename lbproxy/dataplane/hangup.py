"""Seeing a peer leave while its socket is not being read.

A paused transport reports neither FIN nor RST: the loop does not poll it. Back-pressure pauses clients for as long as a
model server takes, and a client that has left must free its slot at once. So the descriptor is duplicated into one
epoll of our own that asks for EPOLLRDHUP only, and that epoll is a reader of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable


class HangupWatch:
    """Calls back once when a watched peer has shut down or reset its connection."""

    __slots__ = ("_callbacks", "_epoll", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, fd: int, callback: Callable[[], None]) -> int:
        """Watch a duplicate of `fd`; returns a token for `unwatch`, or -1 when out of descriptors (no watch then)."""
        try:
            token = os.dup(fd)
        except OSError:
            return -1
        self._epoll.register(token, select.EPOLLRDHUP | select.EPOLLONESHOT)
        self._callbacks[token] = callback
        return token

    def unwatch(self, token: int) -> None:
        if self._callbacks.pop(token, None) is None:
            return
        with contextlib.suppress(OSError):  # one-shot entries stay registered until the last duplicate is closed
            self._epoll.unregister(token)
        os.close(token)

    def _ready(self) -> None:
        for token, _ in self._epoll.poll(0):
            callback = self._callbacks.get(token)
            if callback is not None:
                self.unwatch(token)
                callback()

    def close(self) -> None:
        for token in list(self._callbacks):
            self.unwatch(token)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
