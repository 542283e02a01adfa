"""Network addresses as lbproxy writes them: `host:port`, `[v6]:port`, `:port`, `unix:PATH`, `unix:@abstract`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

_ESCAPED_ZONE: Final = re.compile(
    "%25([A-Za-z])"
)  # RFC 6874 section 2: as a URL has it. %25 alone is the 25th interface


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect: a host and a port, or the path of a unix socket (then host is "" and port 0)."""

    host: str
    port: int
    path: str = ""

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    @property
    def is_literal(self) -> bool:
        """True if connecting needs no name resolution."""
        if self.path:
            return True
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def sock_path(self) -> str:
        """The path as the kernel wants it: an abstract name starts with NUL."""
        return "\0" + self.path[1:] if self.path.startswith("@") else self.path

    def __deepcopy__(self, memo: dict[int, object]) -> Address:
        """Itself: nothing of it can change, and a frozen class that is compiled can't be filled in by copy."""
        return self

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AddressRange(Address):
    """`host:5001-5004` before it is expanded: `port` is the first, `last_port` the last.

    It stands here, beside its base class, because this module is compiled: interpreted code cannot inherit from it.
    """

    last_port: int = 0


def known_as(host: str) -> str:
    """The name or address by which a peer knows itself: for Host, SNI and the comparison with its certificate.

    Lower case, without the dot that ends an absolute name (RFC 6066 section 3: SNI has none; certificates neither) and
    without a zone, which means something on this machine only (RFC 6874 section 1). "" for a unix socket.
    """
    return host.partition("%")[0].rstrip(".").lower()


def authority(host: str, port: int) -> str:
    """The Host field value for a server, `localhost` for a unix socket."""
    name = known_as(host)
    if not name:
        return "localhost"
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _of_many_colons(text: str, host: str, port_text: str) -> str:
    """What to say of an address with several colons that is not in brackets: one of IPv6, or none at all."""
    try:
        ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return f"{text!r} has more than one port; write host:port"
    return f"write an IPv6 address in brackets: [{host}]:{port_text}"


def parse_address(text: str, *, default_host: str | None = None) -> Address:
    """Read one address. `:port` is allowed only with a default host. Raises ValueError with a sentence for the user."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path or path == "@":
            raise ValueError("a unix address needs a path: unix:/run/app.sock")
        if len(path.encode()) > 107:
            raise ValueError("a unix socket path has at most 107 bytes")
        return Address("", 0, path)
    if "://" in text:
        named = text.partition("://")[2].partition("/")[0]
        raise ValueError(f"{text!r} is a URL; write {named if ':' in named else 'host:port'}")
    if text.startswith("[") and text.endswith("]"):
        raise ValueError(f"{text!r} has no port; write {text}:PORT")
    host, colon, port_text = text.rpartition(":")
    if not colon:
        if text.isascii() and text.isdigit():
            meant = f"127.0.0.1:{text}" if default_host is None else f":{text}"
            raise ValueError(f"{text!r} is a port alone; write {meant}")
        raise ValueError(f"{text!r} has no port; write host:port")
    if host.startswith("[") and host.endswith("]"):
        host = _ESCAPED_ZONE.sub(r"%\1", host[1:-1])
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError(f"[{host}] is not an IPv6 address") from None
    elif ":" in host:
        raise ValueError(_of_many_colons(text, host, port_text))
    if not (port_text.isascii() and port_text.isdigit()) or not 0 <= int(port_text) <= 65535:
        raise ValueError(f"{port_text!r} is not a port (0 to 65535)")
    if not host:
        if default_host is None:
            raise ValueError(f"{text!r} has no host")
        host = default_host
    return Address(host, int(port_text))
