"""What channel.py says, for a process without an event loop: it waits with poll(2), and nothing here waits."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from lbproxy.control.status import Json
from lbproxy.process.upgrade.channel import BATCH, LENGTH, Gone, packed, size_of, unpacked

_PIECE: Final = 1 << 16


class Talk:
    """One end, on a stream socket that is this object's from now on."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = bytearray()
        self._unsent: deque[tuple[memoryview, tuple[int, ...]]] = deque()

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def events(self) -> int:
        """What to poll for; then `flush`, and `hear` until there is nothing."""
        return select.POLLIN | (select.POLLOUT if self._unsent else 0)

    # --- to the other side ------------------------------------------------------------------------------------------

    def say(self, say: str, **told: object) -> None:
        """At once, or as soon as the other side takes it. Raises Gone, Broken."""
        self._unsent.append((memoryview(packed(say, **told)), ()))
        self.flush()

    def say_sockets(self, fds: Sequence[int], description: Mapping[str, object]) -> None:
        """`sockets` with this description, and the descriptors, which must stay open until `flush` has sent them.
        Raises Gone, Broken."""
        self._unsent.append((memoryview(packed("sockets", **description, descriptors=len(fds))), ()))
        for start in range(0, len(fds), BATCH):
            self._unsent.append((memoryview(b"."), tuple(fds[start : start + BATCH])))
        self.flush()

    def flush(self) -> None:
        """Send what the other side takes now. Raises Gone."""
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                n_sent = socket.send_fds(self._sock, [data], list(fds)) if fds else self._sock.send(data)
            except BlockingIOError:
                return
            except OSError:
                raise Gone from None
            if n_sent == len(data):
                self._unsent.popleft()
            else:
                self._unsent[0] = data[n_sent:], ()

    # --- from the other side ----------------------------------------------------------------------------------------

    def hear(self) -> Json | None:
        """The next message, None if it is not all there yet. Raises Gone, Broken."""
        while True:
            told = self._next()
            if told is not None:
                return told
            try:
                data = self._sock.recv(_PIECE)
            except BlockingIOError:
                return None
            except OSError:
                raise Gone from None
            if not data:
                raise Gone
            self._received += data

    def _next(self) -> Json | None:
        received = self._received
        if len(received) < LENGTH.size:
            return None
        end = LENGTH.size + size_of(bytes(received[: LENGTH.size]))
        if len(received) < end:
            return None
        body = bytes(received[LENGTH.size : end])
        del received[:end]
        return unpacked(body)

    def close(self) -> None:
        """This process's end."""
        self._sock.close()
