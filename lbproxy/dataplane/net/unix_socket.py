"""Unix sockets: the file of a listener, and connecting to a server whose accept queue may be full, for checks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from lbproxy.address import Address

DEFAULT_MODE = 0o660
RETRY_S = 0.01
MOST_RETRY_S = 0.1
_PROBE_S = 1.0


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a bound socket; `remove` leaves alone what somebody else has put in its place meanwhile."""

    path: Path
    device: int
    inode: int

    def remove(self) -> None:
        with contextlib.suppress(OSError):  # gone, or no longer allowed: the process ends all the same
            if self._is_mine():
                self.path.unlink()

    def set_mode(self, mode_bits: int | None) -> None:
        """Permissions; None: the usual ones."""
        with contextlib.suppress(OSError):  # gone: nobody can connect by it, whatever it permits
            if self._is_mine():
                self.path.chmod(mode_bits if mode_bits is not None else DEFAULT_MODE)

    def _is_mine(self) -> bool:
        found = self.path.lstat()
        return (found.st_dev, found.st_ino) == (self.device, self.inode)


def bind_unix(address: Address, mode_bits: int | None, backlog: int) -> tuple[socket.socket, SocketFile | None]:
    """A listening socket, and its file unless the name is abstract. Replaces a file that nobody listens on any more.

    The file has its permissions before the first client can connect. Raises OSError.
    """
    is_file = not address.path.startswith("@")
    path = Path(address.path)
    if is_file:
        _remove_stale(path)
    file: SocketFile | None = None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address.sock_path)
        if is_file:
            found = path.lstat()
            file = SocketFile(path, found.st_dev, found.st_ino)
            path.chmod(mode_bits if mode_bits is not None else DEFAULT_MODE)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        if file is not None:
            file.remove()
        raise
    return sock, file


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody listens on any more. Raises OSError EADDRINUSE if somebody does."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except (TimeoutError, BlockingIOError):
            raise _in_use() from None  # its queue is full: somebody listens, and is busy
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                raise _in_use() from None  # a socket of another kind
            raise
    raise _in_use()


def _in_use() -> OSError:
    return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def bind_hint(error: OSError) -> str:
    """What to do about a failed `bind_unix`; "" if nothing is known."""
    return {
        errno.EADDRINUSE: "something else listens there; stop it or choose another path",
        errno.EACCES: "no permission to make the socket's file, or to connect to the one that is there",
        errno.EPERM: "the file that is there belongs to somebody else; remove it or choose another path",
        errno.ENOENT: "the directory does not exist; create it",
        errno.ENOTDIR: "a part of the path is not a directory",
        errno.EROFS: "the directory is read-only; choose another path",
    }.get(error.errno or 0, "")


async def connect_unix(address: Address) -> socket.socket:
    """A connected socket. Raises OSError; the caller's time-out ends the wait.

    Where the accept queue is full TCP sends its SYN again; connect(2) on a unix socket gives up with EAGAIN, which
    uvloop's and asyncio's sock_connect take for success. So it is tried again here. This is for checks, of which there
    is one at a time; requests wait in a Backlog.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        pause_s = RETRY_S
        while not _is_connected(sock, address.sock_path):
            await asyncio.sleep(pause_s)  # nobody says when there is room
            pause_s = min(2 * pause_s, MOST_RETRY_S)
    except BaseException:  # also when the dial is cancelled: nobody else knows of this socket
        sock.close()
        raise
    return sock


def _is_connected(sock: socket.socket, path: str) -> bool:
    try:
        sock.connect(path)
    except BlockingIOError:
        return False
    return True
