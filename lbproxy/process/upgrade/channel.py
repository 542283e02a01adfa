"""What two processes say to each other while one takes over from the other: messages and sockets, over a unix socket.

A message is its length in 4 octets and a JSON object whose `say` names it:

    new to old      old to new      meaning
    hello                           I am an lbproxy that can be handed sockets; `protocol`, `version`, `pid`
                    sockets         what follows are the sockets that it describes; `states`: what I know of servers
    failed                          I can't; `problems`, one sentence each
    ready                           I could; `taken`: the names of the sockets that I use
                    go              do; `states`, as they are by now
                    abort           don't, and end
    serving                         I accept
    stop                            I was told to stop: whoever still finishes something for me is to end as well

The end of the stream means that the other process is gone. The new one then goes on by itself if it can; the old one
goes on as if nothing had happened, unless `serving` was said. Descriptors follow `sockets` in batches of BATCH, each
with one octet: the kernel takes 253 at once.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from lbproxy.control.status import Json

PROTOCOL: Final = 1
BATCH: Final = 64
MOST_BYTES: Final = 64 << 20  # of a message: ten thousand servers are 4 MB
MOST_SOCKETS: Final = 4096
LENGTH: Final = struct.Struct("!I")


class Broken(Exception):
    """The other side said what can't be understood. The text says what."""


class BrokenOff(Broken):
    """The other side has stopped in the middle of its sockets, and says something else."""


class Gone(Exception):
    """The other side has closed its end, or its process has ended."""


def packed(say: str, **told: object) -> bytes:
    """A message as it is sent. Raises Broken if it is too long to be taken."""
    body = json.dumps({"say": say, **told}).encode()
    if len(body) > MOST_BYTES:
        raise Broken(f"{say} would take {len(body)} bytes")
    return LENGTH.pack(len(body)) + body


def size_of(prefix: bytes) -> int:
    """The length that stands before a message. Raises Broken."""
    (size,) = LENGTH.unpack(prefix)
    if not 0 < size <= MOST_BYTES:
        raise Broken(f"a message of {size} bytes")
    return int(size)


def unpacked(body: bytes) -> Json:
    """Raises Broken."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise Broken("a message that is no JSON") from None
    if not isinstance(told, dict) or not isinstance(told.get("say"), str):
        raise Broken("a message that says nothing")
    return told


# --- before there is an event loop, or beside it ---------------------------------------------------------------------


def send(sock: socket.socket, say: str, **told: object) -> None:
    """Raises Gone, TimeoutError as the socket's time-out says, Broken."""
    try:
        sock.sendall(packed(say, **told))
    except TimeoutError:
        raise
    except OSError:
        raise Gone from None


def receive(sock: socket.socket) -> Json:
    """One message, and not an octet of what follows it. Raises Gone, TimeoutError, Broken."""
    return unpacked(_exactly(sock, size_of(_exactly(sock, LENGTH.size))))


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        try:
            data = sock.recv(min(size - len(found), 1 << 20))
        except TimeoutError:
            raise
        except OSError:
            raise Gone from None
        if not data:
            raise Gone
        found += data
    return bytes(found)


def send_sockets(sock: socket.socket, fds: Sequence[int], description: Mapping[str, object]) -> None:
    """`sockets` with this description, and the descriptors. Raises Gone, TimeoutError, Broken."""
    send(sock, "sockets", **description, descriptors=len(fds))
    for start in range(0, len(fds), BATCH):
        try:
            socket.send_fds(sock, [b"."], fds[start : start + BATCH])
        except TimeoutError:
            raise
        except OSError:
            raise Gone from None


def receive_sockets(sock: socket.socket) -> tuple[Json, list[socket.socket]]:
    """A message, and the sockets that follow if it is `sockets`. Raises Gone, TimeoutError, Broken; nothing stays open
    then. They are not inherited by children."""
    told = receive(sock)
    wanted = told.get("descriptors", 0) if told["say"] == "sockets" else 0
    if not isinstance(wanted, int) or not 0 <= wanted <= MOST_SOCKETS:
        raise Broken(f"{wanted!r:.20} descriptors")
    found: list[socket.socket] = []
    try:
        while len(found) < wanted:
            found += _batch(sock, min(BATCH, wanted - len(found)))
    except BaseException:
        for item in found:
            item.close()
        raise
    return told, found


def _batch(sock: socket.socket, size: int) -> list[socket.socket]:
    try:
        data, fds, flags, _ = socket.recv_fds(sock, 1, size, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError:
        raise
    except OSError:
        raise Gone from None
    found = [socket.socket(fileno=fd) for fd in fds]
    for item in found:
        item.set_inheritable(False)  # not every kernel heeds the flag
    if not data:
        raise Gone
    if len(found) != size or flags & socket.MSG_CTRUNC:
        for item in found:
            item.close()
        if not found and not flags & socket.MSG_CTRUNC:
            raise BrokenOff("no descriptors")
        raise Broken(f"{len(found)} descriptors of {size}; perhaps the limit of open files is too low")
    return found


# --- on the loop ------------------------------------------------------------------------------------------------------


class Line:
    """The same socket on an event loop, once everything with descriptors is over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def on(cls, sock: socket.socket) -> Line:
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock))

    async def hear(self) -> Json:
        """The next message. Raises Gone, Broken."""
        try:
            return unpacked(await self._reader.readexactly(size_of(await self._reader.readexactly(LENGTH.size))))
        except (asyncio.IncompleteReadError, OSError):
            raise Gone from None

    async def say(self, say: str, **told: object) -> None:
        """Raises Gone, Broken."""
        if self._writer.is_closing():
            raise Gone
        try:
            self._writer.write(packed(say, **told))
            await self._writer.drain()
        except OSError:
            raise Gone from None

    def last_word(self, say: str, **told: object) -> None:
        """Say it, if the other side takes it, and close."""
        if not self._writer.is_closing():
            self._writer.write(packed(say, **told))
        self._writer.close()

    def close(self) -> None:
        self._writer.close()
