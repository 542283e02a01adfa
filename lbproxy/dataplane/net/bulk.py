"""Reading large bodies in pieces of a size that fits the reader on the other side.

A transport reads up to 256 KiB at once for a Protocol, which is right for a fast peer and wrong for 500 clients that
don't read: each would hold one such piece. A BufferedProtocol chooses the size. So once a read
shows that a body is large, the transport is given to a BulkReader until the body ends. It reads 250 KiB at a time while
the other side takes what it gets (its kernel queue is empty, one ioctl of 0.5 us a read), and 64 KiB otherwise.

All readers share two buffers: a read is handed on, as bytes, before the loop makes the next one.
"""

from __future__ import annotations

import asyncio
import fcntl
import termios
from collections.abc import Callable
from typing import Final, Protocol

from lbproxy.dataplane.net import stand_in
from lbproxy.dataplane.net.stand_in import StandIn
from lbproxy.protocol.body import BodyReader, LengthReader

FROM_BYTES: Final = 32 * 1024
MUCH_BYTES: Final = 64 * 1024
_SMALL: Final = memoryview(bytearray(64 * 1024))
_LARGE: Final = memoryview(bytearray(250 * 1024))
_ALMOST_EMPTY: Final = 16 * 1024


def is_much_left(reader: BodyReader) -> bool:
    """Does changing the way of reading pay for the rest of this body? A small rest is small however it is read."""
    return not isinstance(reader, LengthReader) or reader.left > MUCH_BYTES


def is_draining(transport: asyncio.Transport | None) -> bool:
    """Has this peer's kernel taken nearly all that was written to it?"""
    if transport is None or transport.is_closing() or transport.get_write_buffer_size():
        return False
    try:
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):
        return False
    return int.from_bytes(queued, "little") < _ALMOST_EMPTY


class Owner(stand_in.Owner, Protocol):
    """The protocol object whose connection it is."""

    @property
    def transport(self) -> asyncio.Transport: ...

    def data_received(self, data: bytes) -> None: ...


class BulkReader(StandIn):
    """Stands in for its owner while a large body is read. `sink` gives the transport that takes it, if there is one."""

    __slots__ = ("_buffer", "_owner", "_sink")

    def __init__(self, owner: Owner, sink: Callable[[], asyncio.Transport | None]) -> None:
        super().__init__(owner)
        self._owner = owner
        self._sink = sink
        self._buffer = _SMALL
        owner.transport.set_protocol(self)

    def end(self) -> None:
        """The body is over: the owner reads for itself again."""
        self._owner.transport.set_protocol(self._owner)  # type: ignore[arg-type]

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = _LARGE if is_draining(self._sink()) else _SMALL
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._owner.data_received(bytes(self._buffer[:nbytes]))
