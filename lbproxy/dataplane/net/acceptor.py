"""Accepting from one listening socket: in batches, up to the limit, past what went wrong with a connection.

accept(2) passes on what the network has reported of the new connection, and what the system is out of. Neither is a
defect: the first concerns that connection and nobody else, after the second one tries again soon.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final, cast

from lbproxy.compiling import accept_now, mypyc_attr
from lbproxy.dataplane.net.poller import Pollable

ACCEPT_BATCH: Final = 64
# accept(2), "Error handling", and the rest of what a connection can have met before it is accepted.
OF_THE_CONNECTION: Final[frozenset[int]] = frozenset(
    (
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,  # a firewall rule
        errno.EPROTO,
        errno.ETIMEDOUT,
    )
)
OF_THE_SYSTEM: Final[frozenset[int]] = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PLAIN: Final = socket.SocketType
REASONS: Final[tuple[str, ...]] = ("network", "resources")


@mypyc_attr(allow_interpreted_subclasses=True)
class Accepting:
    """Who takes the connections. A base class, so that compiled code calls it directly."""

    __slots__ = ()

    @property
    def may_accept(self) -> bool:
        """Is there room for one more?"""
        raise NotImplementedError

    def somebody_waits(self) -> None:
        """There is not, and perhaps somebody wants to come in."""
        raise NotImplementedError

    def accepted(self, fd: int, family: int, peer: object, local: object) -> None:
        """Take charge of a connection. local: its own end's address, None if that is not known. Its descriptor does not
        block, unless it is that of a unix socket."""
        raise NotImplementedError

    def accept_failed(self, reason: str, error: OSError) -> None:
        """reason: a word of REASONS."""
        raise NotImplementedError

    def try_later(self) -> None:
        """Stop accepting for a moment."""
        raise NotImplementedError


class Acceptor(Pollable):
    """One listening socket, as the poller knows it."""

    __slots__ = ("_accept", "_family", "_is_tcp", "_listening", "_local", "_owner", "fd")

    def __init__(self, owner: Accepting, sock: socket.socket) -> None:
        self._owner = owner
        self._listening = sock
        self._family = int(sock.family)
        # What is no such socket is a stand-in.
        self._is_tcp = self._family in (socket.AF_INET, socket.AF_INET6) and isinstance(sock, _PLAIN)
        # socket.accept() is this private method and Python code that asks for the family, the type (both enums) and the
        # default time-out, for each connection. Even so it takes ten times as long as what is for TCP only.
        self._accept: Callable[[], tuple[int, object]] = sock._accept  # type: ignore[attr-defined]
        self.fd = sock.fileno()
        self._local = _known_name(sock)

    def ready(self, events: int) -> None:
        """Accept what is queued, up to the limit; a flood leaves the others their turn."""
        self.accept(ACCEPT_BATCH)

    def accept(self, most: int) -> None:
        """Accept what is queued, so many at most, and no more than there is room for."""
        owner = self._owner
        n_accepted = 0
        for _ in range(most):
            if not owner.may_accept:
                if not n_accepted:  # else the limit is reached just now, and who still waits is another event
                    owner.somebody_waits()
                return
            try:
                found = accept_now(self._listening, self.fd) if self._is_tcp else self._accept_other()
                if found is None:
                    return
                fd, peer = cast(tuple[int, object], found)
            except OSError as error:
                number = error.errno or 0
                if number in OF_THE_CONNECTION:
                    owner.accept_failed("network", error)
                    continue
                if number not in OF_THE_SYSTEM:
                    raise
                owner.accept_failed("resources", error)
                owner.try_later()
                return
            n_accepted += 1
            owner.accepted(fd, self._family, peer, self._local)
        if not n_accepted:
            owner.try_later()  # nothing but errors: it may be the socket's own

    def _accept_other(self) -> tuple[int, object] | None:
        try:
            return self._accept()
        except (BlockingIOError, InterruptedError):
            return None

    def crashed(self, error: Exception) -> None:
        """What went wrong with one connection is no reason to accept no others; pausing keeps it from spinning."""
        self._owner.try_later()


def _known_name(sock: socket.socket) -> object:
    """The local address of every connection that this socket accepts; None if each has its own."""
    if sock.family == socket.AF_UNIX:
        return ""
    name = sock.getsockname()
    return None if name[0] in ("0.0.0.0", "::") else name
