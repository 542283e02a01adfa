"""Ports for what cannot take port 0."""

from __future__ import annotations

import itertools
import os
import socket
import weakref

_FIRST = 10_000
_END = 32_000  # below the ports that the kernel gives to outgoing connections and to port 0
_turn = itertools.count()


def consecutive_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody has.

    The kernel gives them to nobody by itself, and processes that run tests look from different ones on, so they are
    still free when they are used.
    """
    start = os.getpid() * 131
    for turn in _turn:
        port = _FIRST + (start + turn * count) % (_END - _FIRST - count)
        if all(_is_free(number) for number in range(port, port + count)):
            return port
    raise AssertionError("there is always one more turn")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def hold_port(owner: object, host: str, port: int) -> None:
    """Nobody else is given a port as long as `owner` lives, also while it does not listen: it refuses connections then.

    The kernel lets two sockets have an address of which only one listens, if both say SO_REUSEADDR; so the owner has
    bound its own socket before, and may bind another one after it.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
        weakref.finalize(owner, os.close, holder.detach())
