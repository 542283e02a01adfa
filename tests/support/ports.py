"""Ports for what cannot take port 0."""

from __future__ import annotations

import itertools
import os
import socket
import weakref
from collections.abc import Iterator

_FIRST = 10_000
_END = 32_000  # below the ports that the kernel gives to outgoing connections and to port 0
_SLICE = 200  # ports that a process has for itself
_MOST_SLICES = 5  # of one process, which then begins again with its first
_claims: dict[int, socket.socket] = {}  # by the first port
_free: Iterator[int] = iter(())


def consecutive_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody has, and that nobody else will be given.

    The kernel gives them to nobody by itself. Of those who ask here each process has slices of its own, as long as it
    lives: who takes a port later finds it free, and who stops at one and starts again gets it back.
    """
    while True:
        ports = list(itertools.islice(_free, count))
        if len(ports) < count:
            _claim()
        elif all(map(_is_free, ports)):
            return ports[0]


def _claim() -> None:
    """A slice that no process has: names without a file are taken once, and are free when their owner has ended."""
    global _free
    for first in range(_FIRST, _END - _SLICE, _SLICE) if len(_claims) < _MOST_SLICES else ():
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0lbproxy-tests-ports-{first}")
        except OSError:
            claim.close()
            continue
        _claims[first] = claim
        _free = iter(range(first, first + _SLICE))
        return
    if not _claims:
        raise AssertionError("other processes have all ports")
    _free = itertools.chain.from_iterable(range(first, first + _SLICE) for first in _claims)


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
