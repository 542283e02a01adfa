"""Addresses that lbproxy binds: none twice, none that swallows another, none that is also a server (a loop)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from lbproxy.address import Address, AddressRange, known_as
from lbproxy.config.model import Config
from lbproxy.config.notation import one_is_list, parse_bind
from lbproxy.config.problems import Path, path_text
from lbproxy.config.server_model import parse_server_address
from lbproxy.config.source import Document

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_binds(config: Config, data: Any, document: Document) -> None:
    taken: list[tuple[Path, Address]] = []
    if config.admin.bind is not None and not any(path[:1] == ("admin",) for path in document.blamed):
        taken.append((("admin", "bind"), config.admin.bind))
    for path, address in _binds(data):
        for other_path, other in taken:
            if not overlaps(address, other):
                continue
            said = f"{address} is bound by {path_text(other_path)} too"
            if address != other:
                said = f"{address} and {other} of {path_text(other_path)} overlap"
            document.object_to(path, said, "give each its own port")
            break
        taken.append((path, address))
    ports = {bound.port for _, bound in taken}  # 0: of unix sockets
    for path, server in _servers(data):
        if server.port not in ports:
            continue  # as most
        for bind_path, bound in taken:
            if reaches(server, bound):
                document.object_to(path, f"{server} is lbproxy itself ({path_text(bind_path)}): a loop")
                break


def _binds(data: Any) -> Iterator[tuple[Path, Address]]:
    """The readable bind addresses of the listeners, counted as in the file."""
    listeners = data.get("listeners")
    for index, listener in enumerate(listeners if isinstance(listeners, list) else []):
        if not isinstance(listener, dict) or "bind" not in listener:
            continue
        given = listener["bind"]
        for position, item in enumerate(one_is_list(given)):  # type: ignore[arg-type,var-annotated]
            path: Path = ("listeners", index, "bind", position)
            try:
                yield (path if isinstance(given, list) else path[:3]), parse_bind(item)
            except ValueError:
                continue


def _servers(data: Any) -> Iterator[tuple[Path, Address]]:
    """The readable server addresses of the pools, counted as in the file, ranges expanded."""
    pools = data.get("pools")
    for name, pool in pools.items() if isinstance(pools, dict) else ():
        servers = pool.get("servers") if isinstance(pool, dict) else None
        for index, item in enumerate(servers if isinstance(servers, list) else []):
            path: Path = ("pools", name, "servers", index)
            text = item.get("address") if isinstance(item, dict) else item
            try:
                address = parse_server_address(text)
            except ValueError:
                continue
            if isinstance(address, AddressRange):
                for port in range(address.port, address.last_port + 1):
                    yield path, Address(address.host, port)
            else:
                yield path, address


def overlaps(one: Address, other: Address) -> bool:
    """True if the kernel would not let both be bound, or would give one's clients to the other."""
    if one.is_unix or other.is_unix:
        return one == other
    if one.port != other.port or one.port == 0:
        return False
    first, second = _ip(one.host), _ip(other.host)
    if first is None or second is None:
        return known_as(one.host) == known_as(other.host)
    return first == second or (first.version == second.version and (first.is_unspecified or second.is_unspecified))


def reaches(server: Address, bound: Address) -> bool:
    """True if connecting to `server` certainly arrives at `bound`."""
    if server.is_unix or bound.is_unix:
        return server == bound
    if server.port != bound.port:
        return False
    target, listening = _ip(server.host), _ip(bound.host)
    if target is None or listening is None:
        return known_as(server.host) == known_as(bound.host)
    if target == listening:
        return True
    here = target.is_loopback or target.is_unspecified
    if listening.is_unspecified:
        return here and target.version == listening.version
    return target.is_unspecified and listening.is_loopback


def _ip(host: str) -> IpAddress | None:
    """The address that a host stands for without asking a resolver; `localhost` is taken as 127.0.0.1."""
    try:
        return ipaddress.ip_address("127.0.0.1" if known_as(host) == "localhost" else host)
    except ValueError:
        return None
