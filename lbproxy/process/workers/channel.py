"""Messages between the controller and a worker: pickled, each after its length, over a socket that only they have.

Pickles are read, which is safe because both ends are forks of one program, and nobody else ever had the socket.
"""

from __future__ import annotations

import asyncio
import copyreg
import logging
import pickle
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

from lbproxy.address import Address

log = logging.getLogger("lbproxy")

MOST_BYTES: Final = 64 << 20  # of a message, and of what waits: ten thousand servers are 4 MB
_LENGTH: Final = struct.Struct("!I")

# A frozen dataclass that is compiled can't be filled by pickle as others are.
copyreg.pickle(Address, lambda address: (Address, (address.host, address.port, address.path)))

Heard = Callable[[object], None]
Failed = Callable[[str, BaseException], None]


class Channel(asyncio.Protocol):
    """One end, on the running loop. heard: each message; what it raises is a defect, and told to `failed`.

    ended: the other side is gone, or does not read; nothing is heard after that.
    """

    def __init__(self, heard: Heard, ended: Callable[[Channel], None], failed: Failed) -> None:
        self._heard = heard
        self._ended = ended
        self._failed = failed
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    async def open(self, sock: socket.socket) -> None:
        """Speak over a socket, which is this channel's now. Messages may come before this returns. Raises OSError."""
        sock.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    def send(self, message: object) -> None:
        """Say it, if anybody is there; never waits. Who has MOST_BYTES to read is given up."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        transport.write(_LENGTH.pack(len(body)) + body)
        if transport.get_write_buffer_size() > MOST_BYTES:
            log.warning("a process does not read what it is told, %d bytes wait: it is told no more", MOST_BYTES)
            transport.abort()

    def close(self) -> None:
        """What was said is still sent."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        while len(received) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(received)
            if size > MOST_BYTES:
                raise ValueError(f"a message of {size} bytes")  # a defect of ours: the loop tells, and ends this
            if len(received) < _LENGTH.size + size:
                return
            body = bytes(received[_LENGTH.size : _LENGTH.size + size])
            del received[: _LENGTH.size + size]
            try:
                self._heard(pickle.loads(body))
            except Exception as error:  # a defect in one message must not end the channel
                self._failed("a message between processes", error)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._ended(self)
