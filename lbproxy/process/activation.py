"""Sockets that a service manager has opened before lbproxy starts (systemd's LISTEN_FDS, sd_listen_fds(3)).

They are matched with what the config binds by their address: a listener, or the admin address, takes the sockets that
are bound where it would bind. The variables are taken out of the environment.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping, MutableMapping, Sequence

from lbproxy.address import Address
from lbproxy.process.upgrade.sockets import Inherited, Passed

FIRST = 3
MOST = 1024


def listen_fds(environ: MutableMapping[str, str], pid: int) -> range:
    """The descriptors that are meant for this process. Raises ValueError."""
    count, meant = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    environ.pop("LISTEN_PIDFDID", None)
    if not count or meant != str(pid):
        return range(0)
    if not (count.isascii() and count.isdigit()) or int(count) > MOST:
        raise ValueError(f"LISTEN_FDS={count!r:.40} is no number of sockets")
    return range(FIRST, FIRST + int(count))


def opened(fds: Iterable[int]) -> list[socket.socket]:
    """Listening stream sockets, ready to accept. Raises ValueError for what is none."""
    found: list[socket.socket] = []
    for fd in fds:
        try:
            sock = socket.socket(fileno=fd)
            is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise ValueError(f"LISTEN_FDS: descriptor {fd} is no socket: {error.strerror}") from None
        if sock.type != socket.SOCK_STREAM or not is_listening:
            sock.detach()
            raise ValueError(f"LISTEN_FDS: descriptor {fd} is no listening stream socket (ListenStream=, Accept=no)")
        sock.set_inheritable(False)
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the connections inherit it
        found.append(sock)
    return found


def address_of(sock: socket.socket) -> Address:
    """Where it is bound."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = name.decode() if isinstance(name, bytes) else str(name)
        return Address("", 0, "@" + text[1:] if text.startswith("\0") else text)
    return Address(str(name[0]), int(name[1]))


def assign(
    wanted: Mapping[str, Address], sockets: Sequence[tuple[Address, socket.socket]]
) -> tuple[Inherited, list[str]]:
    """Whose each socket is, and what is to be said of those that are nobody's. wanted: what will be bound, by name."""
    found = Inherited()
    odd: list[str] = []
    for address, sock in sockets:
        name = next((name for name, item in wanted.items() if _is_same(item, address)), None)
        if name is None:
            odd.append(
                f"the service manager has opened {address}, which no listener binds: nobody is accepted there; "
                f"the config binds {', '.join(map(str, wanted.values()))}"
            )
            sock.close()
            continue
        known = found.waiting.get(name)
        found.waiting[name] = Passed((*(known.sockets if known is not None else ()), sock))
    return found, odd


def _is_same(wanted: Address, bound: Address) -> bool:
    if wanted.is_unix or bound.is_unix:
        return wanted.path == bound.path and bound.is_unix
    if wanted.port != bound.port:
        return False
    try:
        return ipaddress.ip_address(wanted.host) == ipaddress.ip_address(bound.host)
    except ValueError:
        return wanted.host == "localhost" and bound.host in ("127.0.0.1", "::1")
