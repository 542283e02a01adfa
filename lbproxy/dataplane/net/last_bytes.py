"""The end of a connection, below its transport: closing with a reset, and reading what arrived before one."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

_LINGER_RESET: Final = struct.pack("ii", 1, 0)
_UNIX: Final = int(socket.AF_UNIX)
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SO_LINGER: Final = int(socket.SO_LINGER)


def reset_on_close(sock: Any) -> None:
    """Have the close of this socket send RST, so that the peer can tell it from a clean end. Unix sockets have none."""
    if sock.family != _UNIX:
        try:  # noqa: SIM105 - a context manager of Python costs more than the system call
            sock.setsockopt(_SOL_SOCKET, _SO_LINGER, _LINGER_RESET)
        except (OSError, ValueError):  # gone already: nothing to reset
            pass


def read_what_is_left(sock: Any, size: int, received: Callable[[bytes], None], is_wanted: Callable[[], bool]) -> None:
    """Give to `received`, in pieces of up to `size`, what the kernel still has of a connection that failed.

    A failed write ends a transport before it has read what explains the failure: an answer, an alert. The descriptor is
    still open then, and the kernel keeps what arrived before the reset. is_wanted: asked before each read.
    """
    try:
        fd = os.dup(sock.fileno())
    except (OSError, AttributeError):
        return
    try:
        copy = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return
    with copy, contextlib.suppress(OSError):
        copy.setblocking(False)
        while is_wanted() and (data := copy.recv(size)):
            received(data)
