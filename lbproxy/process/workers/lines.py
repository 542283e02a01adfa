"""What the supervisor and a process of its say to each other: a word, some bytes, and descriptors.

    supervisor to process    meaning
    peer [NUMBER]            the descriptor leads to the controller, or (to the controller) to that worker
    stop, now                finish what is in flight; do not wait for it any longer
    reopen                   log files were moved
    reload                   SIGHUP (to the controller)
    running                  every worker serves (to the controller)
    sockets                  listening sockets of another config
    unwanted                 they are not: the controller died before it was in force (to workers)
    adopted                  what `config` said is done (to the controller)
    update                   the last that the lbproxy before says of servers (to the controller)
    serve                    whoever has said `prepared` is to serve
    upgrade                  SIGUSR2 (to the controller)
    last                     the next lbproxy could serve: what is known of servers by now (to the controller)?
    no-upgrade               it could not; why (to the controller)
    leave                    it serves: finish what is in flight

    process to supervisor
    failed STATUS TEXT       it can't start
    prepared, updated        it could serve, and waits for `serve`; it has heard `update`
    serving                  it accepts
    notify DATA              for the service manager
    admin                    the sockets of the admin address, for the controller's successor
    sockets, unwanted        listening sockets of another config; it is not wanted
    config                   it is in force: what successors begin with
    known                    what the controller knows of servers, for its successor
    replace NUMBER           that worker does not do what it is told
    upgrade, last, abort     start the next lbproxy; what it is to begin with; it is not wanted any more

A message arrives whole or not at all (SOCK_SEQPACKET). The end of the stream means that the other side is dead: each
end is in one process only, so nobody waits for a supervisor that was killed.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

log = logging.getLogger("lbproxy")

MOST_BYTES: Final = 64 << 10
MOST_INLINE: Final = 16 << 10  # what is longer goes by a file in memory, as the kernel keeps few long messages
MOST_FDS: Final = 253  # the kernel takes no more


class Gone(Exception):
    """The other side has closed its end, or is dead."""


@dataclass(frozen=True, slots=True)
class Said:
    """fds: whoever hears them closes them."""

    word: str
    data: bytes = b""
    fds: tuple[int, ...] = ()

    def loaded(self) -> Any:
        """What `say_all` was given."""
        return pickle.loads(from_memory(self.fds[0]) if self.fds else self.data)


class Line:
    """One end. Nothing here waits."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    @classmethod
    def pair(cls) -> tuple[Line, Line]:
        """Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._sock.fileno()

    def say(self, word: str, data: bytes = b"", fds: Sequence[int] = ()) -> bool:
        """False if the other side is gone, or does not listen and has as much as the kernel keeps for it."""
        if " " in word:
            raise ValueError(f"{word!r} is no word")
        if len(data) > MOST_BYTES or len(fds) > MOST_FDS:
            raise ValueError(f"{word}: {len(data)} bytes and {len(fds)} descriptors are more than fits a message")
        message = word.encode() + b" " + data
        try:
            if fds:
                socket.send_fds(self._sock, [message], list(fds))
            else:
                self._sock.send(message)
        except OSError:
            return False
        return True

    def say_all(self, word: str, whole: object) -> bool:
        """The same, with what may be too long for a message."""
        data = pickle.dumps(whole, pickle.HIGHEST_PROTOCOL)
        if len(data) <= MOST_INLINE:
            return self.say(word, data)
        try:
            fd = in_memory(data)
        except OSError as error:
            log.error("another process of this lbproxy is not told %r: %s", word, error.strerror)
            return False
        try:
            return self.say(word, b"", [fd])
        finally:
            os.close(fd)

    def hear(self) -> Said | None:
        """The next message, None if there is none now. Raises Gone."""
        try:
            try:
                message, fds = self._receive()
            except ConnectionResetError:  # it went without having heard all: what it said itself comes after this
                message, fds = self._receive()
        except BlockingIOError:
            return None
        except OSError:
            raise Gone from None
        if not message:
            raise Gone
        word, _, data = message.partition(b" ")
        return Said(word.decode(), data, tuple(fds))

    def _receive(self) -> tuple[bytes, list[int]]:
        flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        message, fds, _, _ = socket.recv_fds(self._sock, MOST_BYTES + 64, MOST_FDS, flags)
        for fd in fds:
            os.set_inheritable(fd, False)  # not every kernel heeds the flag
        return message, fds

    def close(self) -> None:
        self._sock.close()


def in_memory(data: bytes) -> int:
    """A descriptor of a file in memory, for what is too long for a message. Raises OSError."""
    fd = os.memfd_create("lbproxy-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        os.close(fd)
        raise
    return fd


def from_memory(fd: int) -> bytes:
    """What `in_memory` has. The descriptor is closed."""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read()
